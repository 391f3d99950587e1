package batch

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"slipway/internal/chunk"
	"slipway/internal/keys"
	"slipway/internal/shard"
)

// tools are what a reader without slipway needs. One that is missing fails the tests: see `make deps`.
var tools = []string{"bash", "sha256sum", "age", "zstd", "jq", "ssh-keygen"}

func needTools(t *testing.T) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: run make deps", err)
		}
	}
}

// shell runs a script in dir and returns what it printed.
func shell(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%s%v", script, out, err)
	}
	return string(out)
}

const formatDoc = "../../docs/format.md"

// docCommands splits the document at its console blocks: text, commands with the output that stands below each.
type docCommand struct{ command, output string }

func docCommands(t *testing.T, doc string) (list []docCommand) {
	t.Helper()
	for i, block := range strings.Split(doc, "```console\n") {
		if i == 0 {
			continue
		}
		block, _, ok := strings.Cut(block, "```\n")
		if !ok {
			t.Fatal("console block without an end")
		}
		for _, c := range strings.Split("\n"+block, "\n$ ")[1:] {
			command, output, _ := strings.Cut(strings.TrimSuffix(c, "\n"), "\n")
			list = append(list, docCommand{command, output})
		}
	}
	return list
}

// Every command in docs/format.md prints what stands below it, on the golden files.
func TestFormatDocument(t *testing.T) {
	needTools(t)
	doc, err := os.ReadFile(formatDoc)
	if err != nil {
		t.Fatal(err)
	}
	commands := docCommands(t, string(doc))
	tmp := t.TempDir()
	const mark = "\n=== next ===\n"
	var script strings.Builder
	script.WriteString("set -u\n")
	for _, c := range commands {
		fmt.Fprintf(&script, "%s\nprintf '%s'\n", strings.ReplaceAll(c.command, "/tmp/", tmp+"/"), strings.ReplaceAll(mark, "\n", `\n`))
	}
	outputs := strings.Split(shell(t, goldenDir, script.String()), mark)
	if len(commands) < 10 || len(outputs) != len(commands)+1 {
		t.Fatalf("%d commands, %d outputs", len(commands), len(outputs)-1)
	}
	for i, c := range commands {
		got := strings.TrimSuffix(strings.ReplaceAll(outputs[i], tmp+"/", "/tmp/"), "\n")
		if got == c.output {
			continue
		}
		if !*update {
			t.Errorf("$ %s\nprints\n%s\ndocument says\n%s", c.command, got, c.output)
		}
		was, is := "\n$ "+c.command+"\n"+c.output, "\n$ "+c.command+"\n"+got
		if c.output == "" {
			is += "\n"
		}
		doc = bytes.Replace(doc, []byte(was), []byte(is), 1)
	}
	if *update {
		if err := os.WriteFile(formatDoc, doc, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// toolStore is a store as slipway writes it today, from keys made today.
type toolStore struct {
	dir, batchFile string
	slots          []*shard.Slot
	shard          shard.Digest
	content        [][]byte
}

func writeToolStore(t *testing.T) *toolStore {
	t.Helper()
	s := &toolStore{dir: t.TempDir()}
	at := func(name string) string { return filepath.Join(s.dir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(keys.NewNodeKey(at("node.key"), "alpha"))
	signer, err := keys.LoadNodeKey(at("node.key"))
	check(err)
	recipient, err := keys.NewIdentity(at("identity"), "alpha", keys.PublicLine(signer))
	check(err)
	recipients, err := keys.ParseRecipients([]string{recipient})
	check(err)
	secret, err := keys.NewSecret(at("secret"))
	check(err)
	volume := chunk.DeriveKeys(secret)
	builder, err := shard.NewBuilder(recipients, volume)
	check(err)
	s.content = [][]byte{[]byte("small\n"), bytes.Repeat([]byte("two and a half frames "), 120_000), []byte("another small one\n")}
	for _, data := range s.content {
		slot, err := builder.Add(volume.ID(data), data)
		check(err)
		s.slots = append(s.slots, slot)
	}
	digest, sealed, err := builder.Seal()
	check(err)
	s.shard = digest
	env, body := testEnvelope(), &Body{Secret: &secret, Entries: []Entry{{Parent: Root, Name: "caf\xe9 \"x\"", ID: 2}}}
	env.Introduces = []Object{{Digest: digest, Size: int64(len(sealed))}}
	for i, slot := range s.slots {
		c := &Content{Size: slot.Len, Pieces: []Piece{{Shard: digest, Slot: *slot}}, Clean: true}
		body.Inodes = append(body.Inodes, Inode{ID: FileID(i + 2), Mode: 0o100644, Content: c})
	}
	b, err := Seal(env, body, recipients, signer)
	check(err)
	s.batchFile = Path(env.Epoch, env.First, env.Last)
	for name, data := range map[string][]byte{digest.Path(): sealed, s.batchFile: b.File, "allowed": []byte("alpha " + keys.PublicLine(signer) + "\n")} {
		check(os.MkdirAll(filepath.Dir(at(name)), 0o755))
		check(os.WriteFile(at(name), data, 0o644))
	}
	return s
}

func TestStandardTools(t *testing.T) {
	needTools(t)
	s := writeToolStore(t)
	expect := func(want, script string) {
		t.Helper()
		if got := shell(t, s.dir, "set -eu; B="+s.batchFile+" S="+s.shard.Path()+"; "+script); got != want {
			t.Errorf("%s\nprints %.300q, not %.300q", script, got, want)
		}
	}
	expect(s.shard.String()+"\n", `sha256sum $S | cut -d ' ' -f 1`)
	// The open frame of small chunks is flushed last, behind the big chunk's own frames.
	expect(string(s.content[1])+string(s.content[0])+string(s.content[2]), `age -d -i identity $S | zstd -dc`)
	for i, slot := range s.slots {
		expect(string(s.content[i]), fmt.Sprintf(`age -d -i identity $S | dd iflag=skip_bytes,count_bytes,fullblock skip=%d count=%d status=none | zstd -dc | dd iflag=skip_bytes,count_bytes,fullblock skip=%d count=%d status=none`,
			slot.Offset, slot.Stored, slot.In, slot.Len))
	}
	const signature = `sed '/^-----END SSH SIGNATURE-----$/q' $B | sed 1,2d >sig; sed -n 2p $B >line2; `
	expect("ok\n", signature+`ssh-keygen -Y verify -f allowed -I alpha -n slipway-batch -s sig <line2 >verified && grep -q '^Good "slipway-batch" signature for alpha' verified && echo ok`)
	expect("refused\n", signature+`ssh-keygen -Y verify -f allowed -I alpha -n other -s sig <line2 >/dev/null 2>&1 || echo refused`)
	expect("refused\n", signature+`echo | ssh-keygen -Y verify -f allowed -I alpha -n slipway-batch -s sig >/dev/null 2>&1 || echo refused`)
	// Ed25519 signs the same bytes the same way: ours and ssh-keygen's armor have to be equal to the byte.
	expect("equal\n", signature+`ssh-keygen -q -Y sign -f node.key -n slipway-batch <line2 >theirs 2>/dev/null; cmp sig theirs && echo equal`)
	const body = `tail -c "$(sed -n 2p $B | jq .body_size)" $B`
	expect("equal\n", body+` | sha256sum | cut -d ' ' -f 1 >digest; sed -n 2p $B | jq -r .body_digest | cmp - digest && echo equal`)
	expect("caf\xe9 \"x\"", body+` | age -d -i identity | zstd -dc | jq -r 'select(.parent).name_b64' | base64 -d`)
	expect("0,"+fmt.Sprint(s.slots[2].Offset)+"\n", body+` | age -d -i identity | zstd -dc | jq -r 'select(.inode==4).content.pieces[0]|"\(.[0]),\(.[1])"'`)
	expect(strings.Repeat("x\n", 5), body+` | age -d -i identity | zstd -dc | jq -r '"x"' | head -n 5`)
}

// A signature that ssh-keygen made is taken like ours.
func TestSignedBySSHKeygen(t *testing.T) {
	needTools(t)
	dir := t.TempDir()
	shell(t, dir, `ssh-keygen -q -t ed25519 -N '' -C alpha -f key`)
	pub, err := os.ReadFile(filepath.Join(dir, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	owner, _, _, _, err := ssh.ParseAuthorizedKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	b := mustParse(t, mustSeal(t, testEnvelope(), &Body{}).File)
	line := bytes.Replace(b.line, []byte(`"owner_key":"`+signerLine(testSigner)), []byte(`"owner_key":"`+keyLine(owner)), 1)
	if err := os.WriteFile(filepath.Join(dir, "line2"), line, 0o600); err != nil {
		t.Fatal(err)
	}
	armored := shell(t, dir, `ssh-keygen -q -Y sign -f key -n slipway-batch <line2 2>/dev/null`)
	again := mustParse(t, []byte(version+string(line)+armored+string(b.body)))
	if err := again.Verify([]string{string(pub)}); err != nil {
		t.Error(err)
	}
	body, err := again.Open([]age.Identity{testIdentity}, func(shard.Digest) (io.ReaderAt, int64, error) { return nil, 0, io.EOF })
	if err != nil || len(body.Inodes) != 0 {
		t.Errorf("body: %v", err)
	}
}
