// Package promote makes a replica peer the owner of a volume, under the next epoch: it completes the copies, claims the epoch, brings
// the files back and makes a primary's state that continues the volume's tree, so that only what changes from then on is sealed.
//
// What is true after a crash: until the claim is made nothing has happened but copying. From then on the epoch is this node's, and the
// same call goes on where it was cut off, which it knows by the claim kept in the state directory. The primary's configuration is
// written last: without it nothing can be mounted that is not whole. docs/guarantees.md numbers the commit points.
package promote
