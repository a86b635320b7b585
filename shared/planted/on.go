//go:build planted

package planted

import (
	"fmt"
	"os"
	"slices"

	"google.golang.org/grpc"
)

var chosen = choose()

// choose reads the environment. It panics at a name that does not exist, which
// would plant nothing and let a test of the checker pass for the wrong reason.
func choose() Bug {
	bug := Bug(os.Getenv("MSRCHAT_PLANTED"))
	if bug != "" && !slices.Contains(Bugs, bug) {
		panic(fmt.Sprintf("MSRCHAT_PLANTED=%q: there are %v", bug, Bugs))
	}
	return bug
}

// Has says whether a bug is planted in this program.
func Has(bug Bug) bool { return bug == chosen }

// Dial are options for connections between chat servers that inject the faults
// in the file named by MSRCHAT_RELAY_FAULTS; see injector.
func Dial() []grpc.DialOption {
	file := os.Getenv("MSRCHAT_RELAY_FAULTS")
	if file == "" {
		return nil
	}
	return []grpc.DialOption{grpc.WithStreamInterceptor((&injector{file: file}).intercept)}
}
