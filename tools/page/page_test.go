// Package page clicks through the status page in a headless Chromium, with real daemons behind it, and takes the pictures of docs/.
package page

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var (
	binary   = flag.String("slipway", "", "the slipway `BINARY` to test")
	pictures = flag.String("pictures", "", "`DIR` for the pictures; none without")
	batches  = flag.Int("batches", 0, "seal so `MANY` batches first")
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// output keeps what a daemon says.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// rig is a volume with a cache host and a backup host, all plain directories, and the primary's page.
type rig struct {
	t         *testing.T
	dir, conf string
	page      string
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) slipway(args ...string) {
	r.t.Helper()
	if out, err := exec.Command(*binary, args...).CombinedOutput(); err != nil {
		r.t.Fatalf("slipway %q: %v\n%s", args, err, out)
	}
}

func (r *rig) daemon(args ...string) *output {
	r.t.Helper()
	out := &output{}
	cmd := exec.Command(*binary, args...)
	cmd.Stdout, cmd.Stderr = out, out
	must(r.t, cmd.Start())
	r.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", args[0], out)
		}
	})
	return out
}

// until looks until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("waited 30 s for %s", what)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func newRig(t *testing.T) *rig {
	if *binary == "" {
		t.Fatal("which slipway? -slipway BINARY; `make page` does that")
	}
	r := &rig{t: t, dir: t.TempDir()}
	for _, d := range []string{"src", "mnt", "cache", "vault"} {
		must(t, os.Mkdir(r.path(d), 0o755))
	}
	r.conf = r.path("alpha.yml")
	r.slipway("init", "-c", r.conf, "--volume", "projects", "--node", "alpha", "--source", r.path("src"), "--mount", r.path("mnt"), "--state", r.path("state"),
		"--identity", r.path("identity"), "--cache", "cache1="+r.path("cache"), "--backup", "vault1="+r.path("vault"))
	text, err := os.ReadFile(r.conf)
	must(t, err)
	must(t, os.WriteFile(r.conf, append(text, "http: {listen: \"127.0.0.1:0\"}\n"+pace()...), 0o600))
	cache := r.path("cache1.yml")
	must(t, os.WriteFile(cache, fmt.Appendf(nil, "node: cache1\nstore: %s\nstate: %s\nship: {when: [{age: 0s}], copies: 1, to: [{name: vault1, url: %s}]}\n",
		r.path("cache"), r.path("cache-state"), r.path("vault")), 0o600))
	r.daemon("ship", "-c", cache)
	out := r.daemon("mount", "-c", r.conf)
	said := regexp.MustCompile(`msg="status page" .*url=(http://\S+/)`)
	until(t, "the page", func() bool {
		if m := said.FindStringSubmatch(out.String()); m != nil {
			r.page = m[1]
		}
		return r.page != ""
	})
	r.slipway("wait", "--stage", "stored", "--timeout", "30s", "-c", r.conf)
	return r
}

// pace is how batches come quickly where many are wanted.
func pace() string {
	if *batches == 0 {
		return ""
	}
	return "settle: 0s\nbatch_interval: 1ms\n"
}

// fill seals batches until there are as many as wanted.
func (r *rig) fill() {
	r.t.Helper()
	head := regexp.MustCompile(`"head_batch":(\d+)`)
	for i := 0; ; i++ {
		if i%100 == 0 {
			out, err := exec.Command(*binary, "status", "--json", "-c", r.conf).Output()
			must(r.t, err)
			n, err := strconv.Atoi(string(head.FindSubmatch(out)[1]))
			must(r.t, err)
			if n >= *batches {
				r.t.Logf("%d batches", n)
				return
			}
		}
		must(r.t, os.WriteFile(filepath.Join(r.path("mnt"), "changing"), fmt.Append(nil, i), 0o644))
		r.slipway("wait", "--stage", "sealed", "--timeout", "30s", "-c", r.conf)
	}
}

// TestPage sees the pipeline, looks a file up, lists batches; a broken cache host is said and its mending is; file names do no harm.
func TestPage(t *testing.T) {
	r := newRig(t)
	hostile := "<img src=x onerror=alert(1)>"
	must(t, os.MkdirAll(filepath.Join(r.path("mnt"), "reports"), 0o755))
	for i := range 20 {
		must(t, os.WriteFile(filepath.Join(r.path("mnt"), "reports", fmt.Sprintf("%d.odt", 2000+i)), bytes.Repeat([]byte{byte(i)}, 10_000), 0o644))
		r.slipway("wait", "--stage", "sealed", "--timeout", "30s", "-c", r.conf)
	}
	must(t, os.WriteFile(filepath.Join(r.path("mnt"), hostile), []byte("content"), 0o644))
	r.slipway("wait", "--stage", "stored", "--timeout", "30s", "-c", r.conf)

	r.fill()
	r.slipway("wait", "--stage", "stored", "--timeout", "60s", "-c", r.conf)
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(1100, 760), chromedp.Flag("force-prefers-reduced-motion", true))
	alloc, stopAlloc := chromedp.NewExecAllocator(t.Context(), opts...)
	defer stopAlloc()
	ctx, stop := chromedp.NewContext(alloc)
	defer stop()
	must(t, chromedp.Run(ctx)) // the browser is up before the clock runs

	text := func(selector string) (s string) {
		t.Helper()
		within, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		must(t, chromedp.Run(within, chromedp.Text(selector, &s, chromedp.ByQuery)))
		return s
	}
	says := func(selector, words string) {
		t.Helper()
		last := ""
		defer func() {
			if t.Failed() {
				t.Logf("%s says %q", selector, last)
			}
		}()
		until(t, fmt.Sprintf("%q in %s", words, selector), func() bool {
			last = text(selector)
			return strings.Contains(last, words)
		})
	}
	began := time.Now()
	must(t, chromedp.Run(ctx, chromedp.Navigate(r.page), chromedp.WaitVisible(".pipeline", chromedp.ByQuery), chromedp.WaitVisible("#batches tr", chromedp.ByQuery)))
	if took := time.Since(began); took > time.Second {
		t.Errorf("the picture took %v", took)
	} else {
		t.Logf("the picture took %v", took)
	}
	says("#verdict", "all is well")
	for _, place := range []string{"pending", "alpha (own)", "cache1 (cache)", "vault1 (backup)"} {
		says(".pipeline", place)
	}
	says("#batches", "stored")

	look := func(path, words string) {
		t.Helper()
		must(t, chromedp.Run(ctx, chromedp.SetValue("#path", path, chromedp.ByQuery), chromedp.Click("#lookup button", chromedp.ByQuery)))
		says("#explained", words)
	}
	look("reports/2001.odt", "reports/2001.odt: stored, batch")
	look("reports/none", "not in the volume")
	look(hostile, hostile+": stored")
	r.picture(ctx, "status-page.png")

	// Broken: where the cache host's store was is a file.
	must(t, os.Rename(r.path("cache"), r.path("cache.away")))
	must(t, os.WriteFile(r.path("cache"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(r.path("mnt"), "more"), []byte("to push"), 0o644))
	says("#verdict", "cache1 is")
	says("#volumes ul", "cache1: ")
	r.picture(ctx, "status-page-broken.png")
	r.screen("status-watch.txt")
	must(t, os.Remove(r.path("cache")))
	must(t, os.Rename(r.path("cache.away"), r.path("cache")))
	says("#verdict", "all is well")
}

// picture takes one of the whole page.
func (r *rig) picture(ctx context.Context, name string) {
	r.t.Helper()
	if *pictures == "" {
		return
	}
	var png []byte
	// The place of this run is nobody's business.
	neutral := fmt.Sprintf(`(() => { const w = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (w.nextNode()) w.currentNode.data = w.currentNode.data.replaceAll(%q, "/srv"); })()`, r.dir)
	must(r.t, chromedp.Run(ctx, chromedp.Evaluate(neutral, nil), chromedp.FullScreenshot(&png, 100)))
	must(r.t, os.WriteFile(filepath.Join(*pictures, name), png, 0o644))
}

// screen takes one of `status --watch` in a terminal.
func (r *rig) screen(name string) {
	r.t.Helper()
	session := fmt.Sprintf("slipway-%d", os.Getpid())
	tmux := func(args ...string) string {
		out, err := exec.Command("tmux", append([]string{"-L", session}, args...)...).CombinedOutput()
		if err != nil {
			r.t.Fatalf("tmux %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	tmux("new-session", "-d", "-x", "240", "-y", "20", *binary, "status", "--watch", "-c", r.conf)
	defer tmux("kill-server")
	var screen string
	until(r.t, "the screen", func() bool {
		screen = tmux("capture-pane", "-p")
		return strings.Contains(screen, "cache1 (cache)")
	})
	if *pictures != "" {
		must(r.t, os.WriteFile(filepath.Join(*pictures, name), []byte(strings.TrimRight(strings.ReplaceAll(screen, r.dir, "/srv"), "\n")+"\n"), 0o644))
	}
}
