package source

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Holes returns the holes of a file (SEEK_HOLE/SEEK_DATA) as [offset, length] pairs; none where the file system cannot tell.
// It moves the descriptor's own offset: read with offsets.
func Holes(f *os.File, size int64) ([][2]int64, error) {
	holes, err := findHoles(int(f.Fd()), size)
	if err != nil {
		return nil, fmt.Errorf("find holes of %s: %w", f.Name(), err)
	}
	return holes, nil
}

func findHoles(fd int, size int64) ([][2]int64, error) {
	var holes [][2]int64
	for at := int64(0); at < size; {
		hole, err := unix.Seek(fd, at, unix.SEEK_HOLE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENXIO) {
			break // cannot tell, or the file has become shorter
		}
		if err != nil {
			return nil, err
		}
		if hole >= size {
			break // the one behind every end
		}
		data, err := unix.Seek(fd, hole, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = size, nil // a hole up to the end
		}
		if err != nil {
			return nil, err
		}
		data = min(data, size)
		holes = append(holes, [2]int64{hole, data - hole})
		at = data
	}
	return holes, nil
}
