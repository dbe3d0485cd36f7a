package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// TestCommandsThatAreMentionedExist reads all Go source and all documents. Every `dim VERB` that they name must
// exist, with its flags.
func TestCommandsThatAreMentionedExist(t *testing.T) {
	root := (&app{}).root()
	root.InitDefaultHelpCmd()
	const top = "../.."
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && path != top && (e.Name() == "bin" || strings.HasPrefix(e.Name(), ".")) {
			return fs.SkipDir
		}
		kind := filepath.Ext(path)
		if e.IsDir() || e.Name() == "mentions_test.go" || !slices.Contains([]string{".go", ".md", ".service"}, kind) {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		code := false // within a block of code of a document
		for i, line := range strings.Split(string(text), "\n") {
			if kind == ".md" && strings.HasPrefix(strings.TrimSpace(line), "```") {
				code = !code
			}
			if code {
				line = "`" + strings.TrimLeft(line, " $#")
			}
			for _, problem := range mentionProblems(root, line) {
				t.Errorf("%s:%d: %s", path, i+1, problem)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAMissingCommandIsFound(t *testing.T) {
	root := (&app{}).root()
	for line, want := range map[string][]string{
		"run `dim node ls` or dim image capture NAME --rollout now": nil,
		"hint: dim rollout n01 compute --when now":                  nil,
		"dim is mounted there, and here dim does nothing":           nil,
		"`dim does nothing":                     {"there is no command dim does"},
		"see `dim nodes`":                       {"there is no command dim nodes"},
		"hint: \"dim node lst\" lists them":     {"there is no command dim node lst"},
		"dim node --help lists the commands":    nil,
		"in words for `dim node ls --unknown`.": {"dim node ls has no flag --unknown"},
		"dim node ls 'n[01-04]' --frm":          {"dim node ls has no flag --frm"},
	} {
		if diff := cmp.Diff(want, mentionProblems(root, line)); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
}

// mention is a command that a line names, with the character before it. It ends at a quote or a punctuation mark. An
// operand in single quotes is part of it.
var mention = regexp.MustCompile("(^|.)\\bdim ([a-z](?:'[^']*'|[^\"'`,;:)|<\\\\]+)*)")

// mentionProblems returns what is wrong with the commands that a line names.
func mentionProblems(root *cobra.Command, line string) (problems []string) {
	for _, found := range mention.FindAllStringSubmatch(line, -1) {
		quoted := found[1] == "`" || found[1] == "\""
		for _, text := range strings.Split(found[2], " dim ") {
			if text == "capture 2" || text == "machine-id" { // the beginnings of two formats
				continue
			}
			words := strings.Fields(text)
			if sub, _, err := root.Find(words[:1]); (err != nil || sub == root) && !quoted {
				continue // dim is the subject of a sentence
			}
			if p := mentionProblem(root, words); p != "" {
				problems = append(problems, p)
			}
		}
	}
	return problems
}

// mentionProblem follows the words after "dim" down the tree of commands, then looks up the flags.
func mentionProblem(cmd *cobra.Command, words []string) string {
	operands := false
	for _, w := range words {
		w, ended := strings.CutSuffix(w, ".")
		sub, _, err := cmd.Find([]string{w})
		group := cmd.HasSubCommands() && !strings.Contains(cmd.Use, " ")
		switch {
		case strings.HasPrefix(w, "--"):
			flag, _, _ := strings.Cut(strings.TrimPrefix(w, "--"), "=")
			if flag == "help" {
				return "" // what follows is the rest of a sentence
			}
			if cmd.Flag(flag) == nil && cmd.InheritedFlags().Lookup(flag) == nil {
				return fmt.Sprintf("%s has no flag --%s", cmd.CommandPath(), flag)
			}
		case err == nil && sub != cmd && !operands:
			cmd = sub
		case group && !operands && strings.Trim(w, "abcdefghijklmnopqrstuvwxyz-") == "":
			return fmt.Sprintf("there is no command %s %s", cmd.CommandPath(), w)
		default:
			operands = true
		}
		if ended {
			break
		}
	}
	return ""
}
