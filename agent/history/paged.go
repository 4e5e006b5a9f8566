package history

// pageBits is how many series, as a power of two, are kept side by side.
const pageBits = 10

// paged has a T for each of some series by their numbers. The numbers of a frame
// ascend, and those of series that live at a time are near each other: most are
// found without a look into a map, which takes ten times as long. Numbers may be
// any, and those between take no room beyond their page.
type paged[T any] struct {
	pages  map[int64]*[1 << pageBits]T
	number int64 // of the latest page
	latest *[1 << pageBits]T
}

func (p *paged[T]) page(id int64) *[1 << pageBits]T {
	if number := id >> pageBits; p.latest == nil || number != p.number {
		p.number, p.latest = number, p.pages[number]
	}
	return p.latest
}

// find returns that of a series; nil where none near it was put.
func (p *paged[T]) find(id int64) *T {
	page := p.page(id)
	if page == nil {
		return nil
	}
	return &page[id&(1<<pageBits-1)]
}

// put returns that of a series, and makes room for it.
func (p *paged[T]) put(id int64) *T {
	if p.page(id) == nil {
		if p.pages == nil {
			p.pages = make(map[int64]*[1 << pageBits]T)
		}
		p.latest = new([1 << pageBits]T)
		p.pages[p.number] = p.latest
	}
	return &p.latest[id&(1<<pageBits-1)]
}
