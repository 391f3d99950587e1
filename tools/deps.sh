#!/bin/bash
# deps.sh check|install [demo|test|mount|page|bench]: the Debian packages that slipway's own scripts use. Installing starts no service.
set -euo pipefail
verb=${1:?check or install}; set=${2:-test}

# command → package that brings it
demo=(sshd:openssh-server ssh-keygen:openssh-client /usr/lib/openssh/sftp-server:openssh-sftp-server)
test=("${demo[@]}" age:age zstd:zstd jq:jq setfacl:acl setfattr:attr setcap:libcap2-bin strace:strace
      mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs losetup:mount ps:procps ip:iproute2
      stress-ng:stress-ng sqlite3:sqlite3 git:git rsync:rsync prometheus:prometheus promtool:prometheus systemd-analyze:systemd rpm:rpm man:man-db pgrep:procps nsenter:util-linux)
mount=("${test[@]}" fio:fio bindfs:bindfs gocryptfs:gocryptfs fusermount3:fuse3)
page=(chromium:chromium tmux:tmux)
bench=("${test[@]}" restic:restic lsyncd:lsyncd)
declare -n want=$set

PATH=$PATH:/usr/sbin:/sbin
lacking=()
for w in "${want[@]}"; do
  cmd=${w%:*}; pkg=${w#*:}
  command -v "$cmd" >/dev/null || lacking+=("$pkg")
done
[ ${#lacking[@]} -eq 0 ] && exit 0
if [ "$verb" = check ]; then echo "missing: ${lacking[*]}" >&2; exit 1; fi

if [ "$(id -u)" != 0 ]; then
  echo "deps: run as root: apt-get install ${lacking[*]}" >&2; exit 1
fi
# A package's post-install script asks policy-rc.d before it starts a service: 101 means no.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${lacking[@]}" >/dev/null
