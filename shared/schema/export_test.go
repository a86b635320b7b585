package schema

// Apply brings a database up to the list of one binary.
var Apply = apply
