package main

import (
	"slices"
	"strings"
	"testing"
)

func TestFlagsMayFollowTheArguments(t *testing.T) {
	for _, test := range [][2]string{
		{"fleet upgrade chat", "fleet upgrade chat"},
		{
			"fleet --root . upgrade chat HEAD --set drain=5s --timeout 5m",
			"fleet --root . upgrade --set drain=5s --timeout 5m chat HEAD",
		},
		{"fleet upgrade chat --set=a=b HEAD --help", "fleet upgrade --set=a=b --help chat HEAD"},
		{"fleet upgrade chat --set a=b -- --odd", "fleet upgrade --set a=b chat -- --odd"},
		{"fleet up --timeout 5m chat", "fleet up --timeout 5m chat"},
	} {
		if got := flagsFirst(strings.Fields(test[0])); !slices.Equal(got, strings.Fields(test[1])) {
			t.Errorf("%s: got %v", test[0], got)
		}
	}
}
