package config

import (
	"fmt"
	"net"
	"strconv"

	"github.com/goccy/go-yaml/ast"
)

// HTTP is where a daemon shows its status page, metrics and health.
type HTTP struct {
	Listen string // HOST:PORT; "": nowhere
}

func httpBlock(h *HTTP) reader {
	read := object(field{"listen", text(&h.Listen, checkListen), "listen: \"127.0.0.1:9847\""})
	return func(d *document, n ast.Node, path string) {
		read(d, n, path)
		if host, _, err := net.SplitHostPort(h.Listen); err == nil && !loopback(host) {
			d.warnings = append(d.warnings, fmt.Sprintf("http.listen %s: whoever reaches this address sees file names and sizes, without a password; 127.0.0.1 behind a proxy or an SSH tunnel is safer", h.Listen))
		}
	}
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func checkListen(s string) (problem, fix string) {
	const right = `write HOST:PORT, "127.0.0.1:9847"`
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Sprintf("%q is not an address and a port", s), right
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Sprintf("%q is not a port", port), "write a number between 1 and 65535, or 0 for any that is free"
	} else if host == "" {
		return fmt.Sprintf("%q would listen everywhere", s), fmt.Sprintf(`write "127.0.0.1:%d", or "0.0.0.0:%d" if that is meant`, n, n)
	}
	return "", ""
}
