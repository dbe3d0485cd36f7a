package xcatvalue

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	const racks = `|\D+(\d+).*$|172.20.(101+(($1-1)/84)).(($1-1)%84+1)|`
	for _, tt := range []struct{ value, node, want string }{
		{racks, "n1", "172.20.101.1"},
		{racks, "n084", "172.20.101.84"}, // decimal, as a text that Perl takes for a number
		{racks, "n85", "172.20.102.1"},
		{`|(.*)|($1)-bmc|`, "n07", "n07-bmc"},
		{`|10.0.($1).($2+100)|`, "r03n09", "10.0.3.109"}, // without a pattern, numbers have no leading zeros
		{`|node(\d+)|10.1.0.($1+0)|`, "login1", "login1"},
		{`|n(\d+)|c$1x${1}\1|`, "an5b", "ac5x55b"},
		{`/^n/bmc-/`, "n12", "bmc-12"},
		{`|\D+(\d+)|(sprintf("%c-%02d",65+($1-1)/42,$1%42))|`, "n43", "B-01"},
		{`|(.)(..)n(..)|ib0!(ipadd(10,41,0,100,dim2idx(a2idx($1),36,$2,18,$3),2,1))|`, "b02n03", "ib0!10.41.3.10"},
		{`|\D+(\d+)|(skip($1,"3:2,6"))|`, "n10", "7"},
		{`|\D+(\d+)|(-$1+20)|`, "n7", "13"},
		{`plain`, "n7", "plain"},
		{`|`, "n7", "|"},
	} {
		got, err := Expand(tt.value, tt.node)
		if err != nil || got != tt.want {
			t.Errorf("%s of %s: %q, %v, want %q", tt.value, tt.node, got, err, tt.want)
		}
	}
}

func TestExpandSaysWhyNot(t *testing.T) {
	for value, want := range map[string]string{
		`|(?=n)|x|`:                                  "not a regular expression that can be read",
		`|\D+(\d+)|(1/($1-7))|`:                      "a division by zero",
		`|\D+(\d+)|(system(1))|`:                     "system is not a function that can be evaluated",
		`|\D+(\d+)|($1|`:                             "a parenthesis is not closed",
		`|\D+(\d+)|($a)|`:                            "a variable is not a group",
		`|\D+(\d+)|(08)|`:                            "a number in it is not one of Perl",
		`|\D+(\d+)|()|`:                              "there is no expression between ( and )",
		`|x|` + strings.Repeat("(", 100) + `|`:       "",
		`|n|` + strings.Repeat("(", 100) + `|`:       "more than 64 parentheses within parentheses",
		`|n|(` + strings.Repeat("-", 100) + `1)|`:    "more than 64 signs",
		`|n|` + strings.Repeat("x", maxLength) + `|`: errTooLong.Error(),
	} {
		_, err := Expand(value, "n7")
		if got := errorText(err); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%.60s: %q, want %q", value, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzExpand(f *testing.F) {
	f.Add(`|\D+(\d+).*$|172.20.(101+(($1-1)/84)).(($1-1)%84+1)|`, "n85")
	f.Add(`|(.)(..)|(ipadd(10,41,0,100,dim2idx(a2idx($1),36),2,1))(skip(3,"1:2"))(sprintf("%02x%s",1,2))|`, "a02")
	f.Fuzz(func(t *testing.T, value, node string) {
		text, err := Expand(value, node)
		if IsExpression(value) && err == nil && len(text) > maxLength {
			t.Errorf("%d bytes", len(text))
		}
	})
}
