// Package hold is what an operator holds back on a cache host: from which batch on nothing goes to the backup hosts. The shipper heeds it,
// and listings show it while no shipper runs.
//
// After a crash the file is the old one or the new one, whole.
package hold

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/batch"
	"slipway/internal/durable"
)

// Hold is one word of the operator's: this batch and all behind it stay.
type Hold struct {
	Seq   batch.Seq `json:"seq"`
	Since time.Time `json:"since"`
}

// Path is where the holds of a volume lie in the directory in which the shipper remembers volumes.
func Path(volumes, volume string) string { return filepath.Join(volumes, volume+".holds") }

// Read returns the holds; none where there is no file. An error says that nobody knows what is held.
func Read(path string) (list []Hold, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is held %s: %w", path, err)
	}
	return list, nil
}

// Write replaces them. They are durable when it returns.
func Write(path string, list []Hold) error {
	if list == nil {
		list = []Hold{}
	}
	data, err := json.Marshal(list)
	if err == nil {
		err = durable.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = durable.Overwrite(path, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write down what is held: %w", err)
	}
	return nil
}

// First returns the hold with the lowest number, which is the one that counts; Seq 0: there is none.
func First(list []Hold) (first Hold) {
	for _, h := range list {
		if first.Seq == 0 || h.Seq < first.Seq {
			first = h
		}
	}
	return first
}
