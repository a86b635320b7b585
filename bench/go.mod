module github.com/msrchat/msrchat/bench

go 1.26.0

require (
	github.com/cespare/xxhash/v2 v2.3.0
	github.com/msrchat/msrchat/client v0.0.0
	github.com/msrchat/msrchat/shared v0.0.0
)

require github.com/stretchr/testify v1.12.1 // indirect

require (
	github.com/HdrHistogram/hdrhistogram-go v1.2.0
	github.com/google/uuid v1.6.0 // indirect
	github.com/msrchat/msrchat/proto v0.0.0
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261026165753-2ffab32bce7e // indirect
	google.golang.org/grpc v1.85.0 // indirect
	google.golang.org/protobuf v1.36.12
)

replace github.com/msrchat/msrchat/proto => ../proto

replace github.com/msrchat/msrchat/shared => ../shared

replace github.com/msrchat/msrchat/client => ../client
