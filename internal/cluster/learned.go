package cluster

import (
	"bytes"
	"fmt"

	"dim/internal/cluster/learned"
)

// Learned returns the learned hardware addresses that hold: those that the description does not state itself.
func (c *Cluster) Learned() []learned.Fact { return c.learned }

// Unlearned says of each learned hardware address that does not hold why: the description states something else.
func (c *Cluster) Unlearned() []string { return c.unlearned }

// learn gives cards the hardware addresses that were learned. What the description states since is preferred.
func (b *builder) learn(data []byte) {
	if len(data) == 0 {
		return
	}
	f := b.addSource(learned.File, data)
	list, err := learned.Parse(data)
	if err != nil {
		b.add(location{f, 0}, "%v", err)
		return
	}
	at := location{f, 0}
	var cards []nodeInterface
	var facts []learned.Fact
	for _, fact := range list {
		if ni, ok := b.learnedCard(&fact); ok {
			delete(b.macs, hardwareKey(ni.card.MAC))
			delete(b.cluster.index.macs, hardwareKey(ni.card.MAC))
			cards, facts = append(cards, ni), append(facts, fact)
		}
	}
	for i, ni := range cards {
		fact := facts[i]
		if other, taken := b.macs[hardwareKey(fact.MAC)]; taken {
			b.unlearn(&fact, "it is now the one of %v", other)
			b.restate(ni)
			continue
		}
		ni.card.MAC = fact.MAC
		b.macs[hardwareKey(fact.MAC)] = claim{node: ni.node, at: at}
		b.cluster.index.macs[hardwareKey(fact.MAC)] = ni
		b.cluster.learned = append(b.cluster.learned, fact)
	}
}

// learnedCard returns the card that a fact is about, if its hardware address is to be the learned one.
func (b *builder) learnedCard(fact *learned.Fact) (ni nodeInterface, ok bool) {
	n, ok := b.cluster.Node(NodeName(fact.Node))
	if !ok {
		if _, stated := b.macs[hardwareKey(fact.MAC)]; stated { // the node has another name now
			return ni, false
		}
		b.unlearn(fact, "the node is not in the description")
		return ni, false
	}
	card := n.Interface(fact.Interface)
	switch {
	case card == nil:
		b.unlearn(fact, "the node has no such interface")
		return ni, false
	case bytes.Equal(card.MAC, fact.MAC): // the description has it now
		return ni, false
	case card.MAC != nil && !bytes.Equal(card.MAC, fact.Stated):
		b.unlearn(fact, "the description now states %v", card.MAC)
		return ni, false
	}
	return nodeInterface{n, card}, true
}

func (b *builder) unlearn(fact *learned.Fact, format string, args ...any) {
	b.cluster.unlearned = append(b.cluster.unlearned, fmt.Sprintf("the learned MAC %v of %s, %s, ends: %s",
		fact.MAC, fact.Node, fact.Interface, fmt.Sprintf(format, args...)))
}

// restate lets a card have the hardware address of the description, unless another card has learned it.
func (b *builder) restate(ni nodeInterface) {
	if _, taken := b.macs[hardwareKey(ni.card.MAC)]; taken || ni.card.MAC == nil {
		ni.card.MAC = nil
		return
	}
	b.macs[hardwareKey(ni.card.MAC)] = claim{node: ni.node, at: b.origins[ni.node].at}
	b.cluster.index.macs[hardwareKey(ni.card.MAC)] = ni
}
