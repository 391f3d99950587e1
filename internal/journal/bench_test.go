package journal

import (
	"context"
	"testing"

	"golang.org/x/sync/errgroup"
)

// start runs w until the test ends.
func start(t testing.TB, w *Writer) {
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return w.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func benchRecord() *Record {
	attr := Attr{Mode: 0o100644, UID: 1000, GID: 1000, Nlink: 1, Size: 4096, Mtime: 1, Ctime: 2}
	node := Ident{FS: 1, Ino: 2, Birth: 3}
	return &Record{Op: OpCreate, Node: node, Attr: attr, Parent: node, ParentAttr: attr, Name: "main.go"}
}

func BenchmarkAppend(b *testing.B) {
	w, err := Create(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	start(b, w)
	r := benchRecord()
	b.ReportAllocs()
	for b.Loop() {
		w.Append(r)
	}
	if n, why := w.Gaps(); n > 0 {
		b.Fatal(n, why)
	}
}

func BenchmarkAppendParallel(b *testing.B) {
	w, err := Create(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	start(b, w)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			w.Append(benchRecord())
		}
	})
	if n, why := w.Gaps(); n > 0 {
		b.Fatal(n, why)
	}
}

func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	w, err := Create(dir)
	if err != nil {
		b.Fatal(err)
	}
	start(b, w)
	rs := make([]*Record, 1000)
	for i := range rs {
		rs[i] = benchRecord()
	}
	for range 20 {
		w.Append(rs...)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := OpenReader(dir, Position{})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for {
			if _, _, err := r.Next(); err != nil {
				break
			}
			n++
		}
		if n != 20000 {
			b.Fatal(n)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
