// Package control is the vocabulary of the API between the running daemon and the command line: what can be asked,
// what is answered, and how a failure is reported.
//
// # Concepts
//
// The API is JSON over HTTP on a unix socket in the data directory. The daemon implements Backend, package server
// serves a Backend, and package client calls it. All keys are lower case and do not change; sizes are in bytes, times
// are RFC 3339. Every failure is an Error. It carries a code to branch on.
//
// This package must not know how anything is sent, stored, served or booted.
package control
