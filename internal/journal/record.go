package journal

// Ident names one object of the source file system. Two objects that never lived at the same time may share an Ident when the
// file system reuses an inode within one tick of its clock, so every OpCreate begins a new file whatever its Ident was before.
type Ident struct {
	FS    uint64 // file system or subvolume: f_fsid of statfs(2), st_dev where that is zero
	Ino   uint64 // inode number
	Birth int64  // birth time, nanoseconds since 1970; 0 where the file system keeps none
}

// IsZero tells whether i names nothing.
func (i Ident) IsZero() bool { return i == Ident{} }

// Attr holds an object's attributes as statx(2) gave them after the operation.
type Attr struct {
	Mode  uint32 // st_mode: type and permission bits
	UID   uint32
	GID   uint32
	Nlink uint32
	Rdev  uint64 // device number of a device node
	Size  int64  // bytes
	Mtime int64  // nanoseconds since 1970
	Ctime int64  // nanoseconds since 1970
}

// Op says what a record reports.
type Op uint8

// The operations. The comment names the fields that carry a value besides Op and Time.
const (
	OpStart       Op = 1 + iota // first record of an instance: Node and Attr are the source's root. Every start is a gap.
	OpGap                       // appends were lost before this record; Name says why
	OpCreate                    // create, mkdir, mknod, symlink: Node, Attr, Parent, ParentAttr, Name, Target; FlagInherited
	OpLink                      // hard link: Node, Attr, Parent, ParentAttr, Name
	OpRename                    // Node, Attr, Parent, ParentAttr, Name → NewParent, NewParentAttr, NewName; Other and OtherAttr: what was replaced or exchanged; FlagExchange
	OpUnlink                    // unlink, rmdir: Node, Attr (Nlink after), Parent, ParentAttr, Name
	OpOpen                      // open for write, before it is answered: Node, Attr
	OpRelease                   // an open for write ended (a mapping may live on): Node, Attr
	OpAttr                      // chmod, chown, utimens: Node, Attr
	OpTruncate                  // truncate by path or handle, O_TRUNC: Node, Attr
	OpData                      // content changed by the mount process itself: fallocate, copy_file_range, first write of a handle it serves: Node, Attr
	OpSync                      // fsync was asked for: Node, Attr
	OpSetXattr                  // Node, Attr, XattrName, XattrValue (ACLs are xattrs)
	OpRemoveXattr               // Node, Attr, XattrName
)

// Flags of a record.
const (
	FlagExchange  uint8 = 1 << iota // OpRename: the two entries changed places
	FlagInherited                   // OpCreate: the parent has a default ACL, so the new object has xattrs that no record carries
)

// Record is one operation together with its result. It is a state, not an instruction: applying it twice changes nothing.
type Record struct {
	Op    Op
	Flags uint8
	Time  int64 // wall clock when it was appended, nanoseconds since 1970; a label, never an order

	Node Ident
	Attr Attr

	Parent     Ident
	ParentAttr Attr
	Name       string

	NewParent     Ident
	NewParentAttr Attr
	NewName       string

	Other     Ident
	OtherAttr Attr

	Target     string // of a symbolic link
	XattrName  string
	XattrValue []byte
}

// Position is a place between two records of the journal.
type Position struct {
	Serial   uint64 // counts instances, from 1; orders them
	Instance uint64 // random id of the instance, tells a journal put back from an older one
	Offset   int64  // bytes of records before this place, all files of the instance counted
}

// Before tells whether p lies before q.
func (p Position) Before(q Position) bool {
	if p.Serial != q.Serial {
		return p.Serial < q.Serial
	}
	return p.Offset < q.Offset
}

// IsZero tells whether p is the place before everything.
func (p Position) IsZero() bool { return p == Position{} }
