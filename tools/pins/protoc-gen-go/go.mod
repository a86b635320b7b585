// Pins the protoc-gen-go that tools/get builds.
module github.com/msrchat/msrchat/tools/pins/protoc-gen-go

go 1.26

tool google.golang.org/protobuf/cmd/protoc-gen-go

require google.golang.org/protobuf v1.36.12 // indirect
