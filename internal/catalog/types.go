package catalog

import (
	"time"

	"slipway/internal/batch"
	"slipway/internal/journal"
	"slipway/internal/shard"
)

// Meta is the volume as of the last commit.
type Meta struct {
	VolumeID   batch.VolumeID
	Epoch      batch.Epoch
	Head       batch.Seq    // 0: nothing sealed yet
	HeadDigest batch.Digest // of the head's file
	Base       batch.Seq
	SealedAt   time.Time // the head's
	LastWhole  batch.Seq // last complete batch
	Complete   bool
	Position   journal.Position // folded and sealed up to here
	NextFile   batch.FileID     // the next id to give
	HeadTemp   string           // temporary name of the head's batch file while it may not be renamed yet; recovery finishes it
	Excluded   string           // digest of the exclude list that the tree was sealed with
	BootID     string           // of the machine's run that sealed the head: after another boot the latest files may not have reached the disk
}

// FirstFile is the first id that an epoch after the first gives: a catalog that was lost, or another node's, cannot say which ids
// were used before.
func FirstFile(e batch.Epoch) batch.FileID { return batch.FileID(e) << 40 }

// Inode is a file as last sealed, with what is needed to see whether it changed.
type Inode struct {
	batch.Inode
	Ident journal.Ident
	Size  int64        // st_size when captured (also in Content)
	Ctime int64        // st_ctime when captured
	Seq   batch.Seq    // the batch that last changed it
	Attr  journal.Attr // as last seen
}

// Pending is why a file's content is not sealed.
type Pending struct {
	Since    time.Time
	Position journal.Position // of the first unsealed change
	Reason   string           // one word: new, written, open, unclean, unread, lost
	Writers  int
	Bytes    int64
}

// Location is where a chunk lies.
type Location struct {
	Shard shard.Digest
	Slot  shard.Slot // Chunk is not stored again
}

// ShardInfo is a shard that a batch introduced.
type ShardInfo struct {
	Size    int64
	Seq     batch.Seq
	Evicted bool // no longer in the node's own store
}

// BatchInfo is a sealed batch for listings.
type BatchInfo struct {
	Epoch    batch.Epoch
	Seq      batch.Seq
	SealedAt time.Time
	Digest   batch.Digest
	Files    int64
	Bytes    int64
	Removals int64
	Shards   int
	Stored   int64 // bytes of the shards and the batch file
	Complete bool
}
