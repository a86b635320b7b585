module github.com/msrchat/msrchat/bench

go 1.26.0

require github.com/cespare/xxhash/v2 v2.3.0

replace github.com/msrchat/msrchat/proto => ../proto

replace github.com/msrchat/msrchat/shared => ../shared

replace github.com/msrchat/msrchat/client => ../client
