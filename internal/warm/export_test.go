package warm

// OpenFault opens a tree whose steps end where fault returns an error.
func OpenFault(opt Options, fault func(op string) error) (*Tree, error) { return open(opt, fault) }

// ErrFault is such an error.
var ErrFault = errFault
