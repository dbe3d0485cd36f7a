package changes

import (
	"fmt"
	"strings"

	"dim/internal/control"
	"dim/internal/quantity"
)

// maxSummary bounds a summary, in bytes.
const maxSummary = 160

// Summary returns changes in one line, those of whole objects first: "1 node removed; image compute: kernel".
func Summary(list []control.DescriptionChange) string {
	var whole, parts []string
	for i := range list {
		c := &list[i]
		switch name := c.Subject + " " + c.Names; {
		case c.Subject == "file":
		case c.Kind != control.Changed:
			whole = append(whole, quantity.Plural(c.Count, string(c.Subject))+" "+string(c.Kind))
		case c.Count > 1:
			parts = append(parts, fmt.Sprintf("%s of %s", c.Attribute, quantity.Plural(c.Count, string(c.Subject))))
		default:
			parts = append(parts, fmt.Sprintf("%s: %s", strings.TrimSpace(name), c.Attribute))
		}
	}
	whole = append(whole, parts...)
	text := ""
	for i, part := range whole {
		if len(text)+len(part) > maxSummary {
			return fmt.Sprintf("%s; %d more", text, len(whole)-i)
		}
		if text += part; i+1 < len(whole) {
			text += "; "
		}
	}
	return strings.TrimSuffix(text, "; ")
}
