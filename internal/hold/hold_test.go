package hold

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestHolds(t *testing.T) {
	path := Path(filepath.Join(t.TempDir(), "volumes"), "projects")
	if list, err := Read(path); err != nil || len(list) != 0 || First(list).Seq != 0 {
		t.Errorf("nothing is held: %v, %v", list, err)
	}
	since := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	if err := Write(path, []Hold{{42, since}, {7, since}}); err != nil {
		t.Fatal(err)
	}
	list, err := Read(path)
	if err != nil || len(list) != 2 || First(list) != (Hold{7, since}) {
		t.Errorf("%v, %v", list, err)
	}
	if err := Write(path, nil); err != nil {
		t.Fatal(err)
	}
	if list, err := Read(path); err != nil || len(list) != 0 {
		t.Errorf("all released: %v, %v", list, err)
	}
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("a damaged file holds nothing")
	}
}
