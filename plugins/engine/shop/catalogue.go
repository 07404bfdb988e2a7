package shop

import (
	"fmt"
	"strconv"
	"strings"
)

const currency = "EUR"

// product is an article, with its JSON members encoded once.
type product struct {
	cents    int
	category int
	path     string
	// members ends with the price, without a trailing comma.
	members []byte
}

type category struct {
	name, slug, code string
	// from and to bound the prices, in cents.
	from, to int
	nouns    []string
}

var categories = []category{
	{"Coffee & Tea", "coffee-tea", "CT", 590, 4200, []string{"Espresso Beans", "Filter Roast", "Green Tea", "Moka Pot", "Tea Strainer", "Milk Jug"}},
	{"Kitchen", "kitchen", "KI", 790, 12900, []string{"Chef's Knife", "Cutting Board", "Saucepan", "Mixing Bowl", "Spice Rack", "Rolling Pin"}},
	{"Garden", "garden", "GA", 390, 8900, []string{"Watering Can", "Pruning Shears", "Seed Set", "Planter", "Hand Trowel", "Hose Reel"}},
	{"Home Textiles", "home-textiles", "HT", 1290, 15900, []string{"Duvet Cover", "Linen Sheet", "Wool Throw", "Cushion", "Bath Towel", "Curtain"}},
	{"Lighting", "lighting", "LI", 1490, 24900, []string{"Desk Lamp", "Floor Lamp", "Lantern", "Pendant", "Night Light"}},
	{"Stationery", "stationery", "ST", 190, 4900, []string{"Notebook", "Fountain Pen", "Calendar", "Envelope Set", "Pencil Case", "Ink Bottle"}},
	{"Toys", "toys", "TO", 690, 7900, []string{"Wooden Train", "Puzzle", "Kite", "Building Blocks", "Plush Fox", "Spinning Top"}},
	{"Outdoor", "outdoor", "OU", 1190, 32900, []string{"Backpack", "Sleeping Bag", "Camping Stove", "Water Bottle", "Headlamp", "Tent"}},
	{"Cycling", "cycling", "CY", 890, 18900, []string{"Bike Bell", "Pannier", "Helmet", "Floor Pump", "Rain Cape", "Front Light"}},
	{"Bath & Body", "bath-body", "BB", 450, 3900, []string{"Olive Soap", "Hand Cream", "Bath Salt", "Shampoo Bar", "Nail Brush"}},
	{"Music", "music", "MU", 990, 39900, []string{"Ukulele", "Tuner", "Drumsticks", "Music Stand", "Harmonica", "Kalimba"}},
	{"Books", "books", "BO", 899, 4499, []string{"Cookbook", "Atlas", "Travel Journal", "Picture Book", "Field Guide", "Poetry Reader"}},
}

var (
	qualities = []string{"Classic", "Everyday", "Compact", "Large", "Nordic", "Handmade", "Travel", "Deluxe", "Recycled", "Vintage", "Small", "Studio"}
	brands    = []string{"Alderfell", "Brisa & Sons", "Copperlane", "Dovetail", "Eskerby", "Fennwick", "Grünwerk", "Halden Mill", "Isola", "Juniper Row", "Kestrel", "Lümen"}
	searches  = []string{"gift", "birthday gift", "tea", "lamp", "notebook", "blue", "travel", "wool", "sale", "knife", "garden tools", "kids", "bike light", "soap", "tent", "cook book", "linen", "pen", "café", "new"}
	// endings are the last two digits of prices.
	endings = []int{99, 99, 99, 95, 95, 50, 49, 0}
)

// productsPerCategory times 12 categories gives 204 products.
const productsPerCategory = 17

// catalogue lists the products. It is the same in every shop, so that tests and
// definitions can refer to products.
var catalogue = newCatalogue()

func newCatalogue() []product {
	var products []product
	for c, cat := range categories {
		for i := range productsPerCategory {
			number := len(products) + 1
			bits := facts(0, 1, number)
			span := cat.to - cat.from
			// Squaring makes cheap articles more frequent.
			part := int(bits % 1000)
			cents := cat.from + span*part/1000*part/1000
			cents = cents/100*100 + endings[bits>>20%uint64(len(endings))]
			name := qualities[(i*5+c)%len(qualities)] + " " + cat.nouns[i%len(cat.nouns)]
			members := fmt.Sprintf(`"product_id":"p-%04d","sku":"%s-%02d-%s","category":%q,"name":%q,"brand":%q,"price":`,
				number, cat.code, i+1, strings.ToUpper(strconv.FormatUint(bits>>32%1296+1296, 36)),
				cat.name, name, brands[bits>>40%uint64(len(brands))])
			products = append(products, product{
				cents:    cents,
				category: c,
				path:     fmt.Sprintf("/%s/p-%04d", cat.slug, number),
				members:  appendCents([]byte(members), cents),
			})
		}
	}
	return products
}
