package initialise

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/config"
)

// person answers what is asked, in order, and keeps what was shown. An answer goes with the prompt that it expects.
type person struct {
	t       *testing.T
	answers [][2]string // prompt (a part of it), answer
	shown   strings.Builder
}

func (p *person) Write(b []byte) (int, error) { return p.shown.Write(b) }

func (p *person) ReadLine(prompt string) (string, error) {
	p.shown.WriteString(prompt + "\n")
	if len(p.answers) == 0 {
		return "", io.EOF
	}
	next := p.answers[0]
	p.answers = p.answers[1:]
	if !strings.Contains(prompt, next[0]) {
		p.t.Errorf("asked %q, expected %q", prompt, next[0])
	}
	return next[1], nil
}

// TestAsk: what is not given is asked for, a wrong answer is refused at once with the reason, and what was shown is what is written.
func TestAsk(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "pictures")
	o := Options{Config: filepath.Join(dir, "etc/slipway.yml"), State: filepath.Join(dir, "state")}
	p := &person{t: t, answers: [][2]string{
		{"Directory with the files: ", ""}, {"Directory with the files: ", "~/pictures"}, {"Directory with the files: ", dir}, {"Directory with the files: ", src},
		{"volume [pictures]: ", "my pictures"}, {"volume [pictures]: ", ""},
		{"mount on [" + src + "]: ", filepath.Join(src, "below")}, {"mount on [" + src + "]: ", ""},
		{"Name of this machine", "alpha"},
		{"cache host's store", "sftp:cache1:data"}, {"cache host's store", src + "/cache"}, {"cache host's store", "cache1=sftp://me@cache1/data"},
		{"A backup host's store", "cache1=/elsewhere"}, {"A backup host's store", "vault1=sftp://me@vault1/data"},
		{"One more backup", "sftp://me@vault1/data"}, {"One more backup", "/mnt/disk"}, {"One more backup", ""},
		{"SSH key", ""}, {"Pinned host keys", filepath.Join(dir, "hosts")},
		{"Identity file", dir}, {"Identity file", filepath.Join(dir, "identity")},
		{"Write all this?", "what"}, {"Write all this?", "y"},
	}}
	if err := o.Ask(p); err != nil || len(p.answers) > 0 {
		t.Fatalf("%v; not asked: %q\n%s", err, p.answers, p.shown.String())
	}
	for _, reason := range []string{
		"~ is a matter of the shell", "slipway would back up its own state", `"my pictures" is not a name`, "lie one below the other", "cache.url: ",
		"slipway would back up its own store", `the name "cache1" is also that of cache`, "lies where backups[0] lies", "exists already", "  fix: ",
	} {
		if !strings.Contains(p.shown.String(), reason) {
			t.Errorf("no %q in\n%s", reason, p.shown.String())
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("written before init: %v %v", list, err)
	}
	r, err := Init(o)
	if err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(o.Config)
	if err != nil {
		t.Fatal(err)
	}
	shown := strings.ReplaceAll(p.shown.String(), "age1…", r.Recipient)
	for line := range strings.SplitSeq(strings.TrimSpace(string(written)), "\n") {
		if !strings.Contains(shown, line) && !strings.Contains(line, "# - age1") {
			t.Errorf("written and not shown: %s", line)
		}
	}
	c, err := config.Load(o.Config)
	if err != nil || c.Primary.Volume != "pictures" || c.Primary.Mount != src || len(c.Primary.Backups) != 2 || c.Primary.Backups[1].Name != "backup2" {
		t.Errorf("%+v %v", c, err)
	}
}

// TestAskOnlyForMissing: what the flags say is not asked for again.
func TestAskOnlyForMissing(t *testing.T) {
	o := options(t)
	o.Backups = []config.Store{{Name: "vault1", URL: "/mnt/vault1"}}
	o.Source, o.Mount = "", ""
	p := &person{t: t, answers: [][2]string{{"Directory with the files", "/srv/x"}, {"Directory to mount on", ""}, {"Write all this?", ""}}}
	if err := o.Ask(p); err != nil || len(p.answers) > 0 || o.Source != "/srv/x" {
		t.Errorf("%v; not asked: %q\n%s", err, p.answers, p.shown.String())
	}
}

// TestAskDeclined: whoever gives up, or says no, finds nothing written.
func TestAskDeclined(t *testing.T) {
	for left, answers := range [][][2]string{
		{{"Directory with the files", "/srv/x"}},
		{{"Directory with the files", "/srv/x"}, {"A backup", ""}, {"Write all this?", "n"}, {"Write all this?", "y"}},
	} {
		o := options(t)
		o.Source = ""
		p := &person{t: t, answers: answers}
		if err := o.Ask(p); !errors.Is(err, ErrDeclined) || len(p.answers) != left {
			t.Errorf("%v; not asked: %q", err, p.answers)
		}
		if _, err := os.Stat(o.State); err == nil {
			t.Error("a state directory was made")
		}
	}
}

// TestAskFirst: what no answer would mend is told before anything is asked.
func TestAskFirst(t *testing.T) {
	o := options(t)
	o.Volume, o.Source = "my files", ""
	var faults *config.Faults
	if err := o.Ask(&person{t: t}); !errors.As(err, &faults) {
		t.Error(err)
	}
	o = options(t)
	if _, err := Init(o); err != nil {
		t.Fatal(err)
	}
	o.Source = ""
	if err := o.Ask(&person{t: t}); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
}

// TestCommentedKeys: the configuration has every key of a primary that docs/commands.md has; those written as comments are what holds without them, and
// the examples are such that may be taken as they are.
func TestCommentedKeys(t *testing.T) {
	o := options(t)
	o.Replicas = []config.Store{{Name: "bravo", URL: "/mnt/bravo"}}
	if _, err := Init(o); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(o.Config)
	if err != nil {
		t.Fatal(err)
	}
	for key := range documentedKeys(t) {
		if !strings.Contains("\n"+string(data), "\n"+key+":") && !strings.Contains(string(data), "\n# "+key+":") {
			t.Errorf("no %s in\n%s", key, data)
		}
	}
	plain, err := config.Parse(o.Config, data)
	if err != nil {
		t.Fatal(err)
	}
	set := string(data)
	for _, d := range defaults {
		set = strings.ReplaceAll(set, "\n# "+d.key+":", "\n"+d.key+":")
	}
	commented := set
	for _, e := range append(examples, optional{key: "spool"}, optional{key: "backups"}, optional{key: "ssh"}) {
		commented = strings.ReplaceAll(commented, "\n# "+e.key+":", "\n"+e.key+":")
	}
	with, err := config.Parse(o.Config, []byte(set))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmpPrimary(plain, with); d != "" {
		t.Errorf("a default is not what the comment says: %s", d)
	}
	all, err := config.Parse(o.Config, []byte(commented))
	if err != nil {
		t.Errorf("%v\n%s", err, commented)
	} else if p := all.Primary; p.RPO.Warn == 0 || len(p.Durability) != 1 || p.Heartbeat.URL == "" || p.HTTP.Listen == "" || len(p.Exclude) != 2 || len(p.Backups) != 1 || p.Spool.Cap != 50<<30 {
		t.Errorf("an example was not set: %+v", p)
	}
}

// cmpPrimary tells what differs between two configurations of a primary.
func cmpPrimary(a, b *config.Config) string { return cmp.Diff(*a.Primary, *b.Primary) }

// documentedKeys are the keys in docs/commands.md's table of a primary.
func documentedKeys(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n| Primary | Default | |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	keys := map[string]bool{}
	for line := range strings.SplitSeq(table, "\n") {
		for _, m := range regexp.MustCompile("`([a-z_]+)[`:]").FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			keys[m[1]] = true
		}
	}
	if !found || len(keys) < 20 {
		t.Fatalf("only %d keys are documented: %v", len(keys), keys)
	}
	return keys
}

// TestAskOverFile: nothing is asked where the answers could not be written down.
func TestAskOverFile(t *testing.T) {
	o := Options{Config: filepath.Join(t.TempDir(), "slipway.yml")}
	if err := os.WriteFile(o.Config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &person{t: t}
	if err := o.Ask(p); !errors.Is(err, ErrExists) || p.shown.Len() > 0 {
		t.Errorf("%v, shown %q", err, p.shown.String())
	}
}

// TestAskEnds: the end of the input at any question ends the asking, and nothing is written.
func TestAskEnds(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "pictures")
	if err := os.Mkdir(src, 0o700); err != nil {
		t.Fatal(err)
	}
	answers := [][2]string{
		{"Directory", src}, {"volume", ""}, {"mount on", ""}, {"Name of this", "alpha"}, {"cache host's", "cache1=sftp://me@cache1/data"}, {"A backup", "vault1=sftp://me@vault1/data"},
		{"One more", ""}, {"SSH key", ""}, {"Pinned", ""}, {"Identity", filepath.Join(dir, "identity")}, {"Write all", "y"},
	}
	for n := range answers {
		o := Options{Config: filepath.Join(dir, "etc/slipway.yml"), State: filepath.Join(dir, "state")}
		p := &person{t: t, answers: answers[:n]}
		if err := o.Ask(p); !errors.Is(err, ErrDeclined) || len(p.answers) > 0 || strings.Count(p.shown.String(), answers[n][0]) == 0 {
			t.Errorf("after %d answers: %v\n%s", n, err, p.shown.String())
		}
	}
	o := Options{Config: filepath.Join(dir, "etc/slipway.yml"), State: filepath.Join(dir, "state")}
	if err := o.Ask(&person{t: t, answers: answers}); err != nil {
		t.Error(err)
	}
}
