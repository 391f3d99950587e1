package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Network is some nodes and the router between them.
type Network struct {
	router namespace
	nodes  map[string]*Node
	made   []string // what the kernel calls the namespaces
}

// Node is one node: a namespace with an interface eth0 that leads to the router.
type Node struct {
	Name string
	Addr string // its IPv4 address

	gateway string // the router's address on its link
	ns      namespace
}

// New makes a network of the named nodes, all links up. Names are those of interfaces: at most 15 letters.
func New(names ...string) (*Network, error) {
	router, err := newNamespace()
	if err != nil {
		return nil, err
	}
	n := &Network{router: router, nodes: map[string]*Node{}, made: []string{router.name}}
	err = n.router.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err == nil {
		err = ip(n.router, "link set lo up")
	}
	for i, name := range names {
		if err == nil {
			err = n.add(name, i+1)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a network: %w", err), n.Close())
	}
	return n, nil
}

// add joins a node to the router by a link of its own.
func (n *Network) add(name string, number int) error {
	ns, err := newNamespace()
	if err != nil {
		return err
	}
	node := &Node{Name: name, Addr: fmt.Sprintf("10.93.%d.2", number), gateway: fmt.Sprintf("10.93.%d.1", number), ns: ns}
	n.nodes[name] = node
	n.made = append(n.made, ns.name)
	err = ip(n.router,
		"link add "+name+" type veth peer name eth0 netns "+ns.path(),
		"addr add "+node.gateway+"/30 dev "+name,
		fmt.Sprintf("route add blackhole 10.93.%d.0/30 metric 9999", number), // where packets go while the link is down
		"link set "+name+" up")
	if err != nil {
		return err
	}
	return ip(ns,
		"link set lo up",
		"addr add "+node.Addr+"/30 dev eth0",
		"link set eth0 up",
		"route add default via "+node.gateway)
}

// Node returns a node by name; nil if there is none.
func (n *Network) Node(name string) *Node { return n.nodes[name] }

// Close lets go of all namespaces. They end when the last process in them has.
func (n *Network) Close() error {
	err := n.router.file.Close()
	for _, node := range n.nodes {
		err = errors.Join(err, node.ns.file.Close())
	}
	n.nodes = nil
	return err
}

// Do runs fn in the node's namespace: sockets that it makes and processes that it starts belong there for good. The goroutine
// has the thread to itself meanwhile; goroutines that fn starts are not in the namespace.
func (n *Node) Do(fn func() error) error { return n.ns.do(fn) }

// Path is the namespace as a file, for `nsenter --net=PATH` while this process lives.
func (n *Node) Path() string { return n.ns.path() }

// Inside returns the processes that are in any of the network's namespaces. After Close, none means that the namespaces are gone.
func (n *Network) Inside() []int {
	var pids []int
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*/ns/net") // the pattern is a constant and right
	for _, task := range tasks {
		where, err := os.Readlink(task)
		if err != nil || !slices.Contains(n.made, where) {
			continue // it has ended, or is elsewhere
		}
		if pid, err := strconv.Atoi(strings.Split(task, "/")[2]); err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ip runs lines of ip(8) in a namespace.
func ip(ns namespace, lines ...string) error { return batch(ns, "ip", lines) }

// batch runs lines of one of iproute2's programs.
func batch(ns namespace, program string, lines []string) error {
	cmd := exec.Command(program, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.do(cmd.Run); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(lines, "; "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
