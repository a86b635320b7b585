package schema

// Apply migrates a database with the list of one binary.
var Apply = apply
