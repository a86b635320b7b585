//go:build !planted

package planted

import "google.golang.org/grpc"

// Has says whether a bug is planted in this program: never.
func Has(Bug) bool { return false }

// Dial are options for connections between chat servers that inject faults:
// none.
func Dial() []grpc.DialOption { return nil }
