package config

import (
	"fmt"
	"strconv"
)

// StoreText is a store as a configuration names it: its name and URL.
func StoreText(s Store) string {
	return fmt.Sprintf("{name: %s, url: %s}", strconv.Quote(s.Name), strconv.Quote(s.URL))
}

// SSHText is the ssh block of a configuration, "" where there is nothing to say.
func SSHText(s SSH) string {
	if s.Key == "" {
		return ""
	}
	text := "ssh:\n  key: " + strconv.Quote(s.Key) + "\n"
	if s.KnownHosts != "" {
		text += "  known_hosts: " + strconv.Quote(s.KnownHosts) + "\n"
	}
	return text
}
