package fusefs
import ("testing";"fmt";"time";"os/exec";"os")
func TestZZ(t *testing.T){
	f := mounted(t)
	run := func(what string, args ...string) { s := time.Now(); out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); fmt.Println(what, time.Since(s).Round(time.Millisecond), err, string(out[:min(len(out),300)])) }
	nat := t.TempDir()
	for range 2 {
	run("cp native", "cp", "-a", "/usr/local/go/src", nat+"/src")
	run("cp mount", "cp", "-a", "/usr/local/go/src", f.mnt+"/src")
	run("find mount", "find", f.mnt, "-newer", "/etc/passwd", "-size", "+1000k")
	run("find mount2", "find", f.mnt, "-newer", "/etc/passwd", "-size", "+1000k")
	run("find native", "find", nat, "-newer", "/etc/passwd", "-size", "+1000k")
	run("diff", "diff", "-r", nat+"/src", f.mnt+"/src")
	run("diff native", "diff", "-r", nat+"/src", f.source+"/src")
	run("grep mount", "grep", "-rc", "zzzyyy", f.mnt)
	run("rm native", "rm", "-r", nat+"/src")
	run("rm mount", "rm", "-r", f.mnt+"/src")
	}
	st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.cmd.Process.Pid)); fmt.Println(string(st[400:1000]))
	t.Fail()
}
