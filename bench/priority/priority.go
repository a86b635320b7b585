// Package priority says who gets a core first when a measurement runs on the machine that it
// measures. In the field clients have machines of their own.
package priority
