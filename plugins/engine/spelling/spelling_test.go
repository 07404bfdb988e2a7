package spelling

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNearest(t *testing.T) {
	candidates := []string{"Order Completed", "Order Updated", "Product Added", "ab"}
	for name, want := range map[string]string{
		"Order Complete": "Order Completed", "order completed": "Order Completed", "Ordre Updated": "Order Updated",
		"Added Product": "", "Checkout": "", "": "", "ba": "ab", "x": "", strings.Repeat("Order Completed", 10): "",
	} {
		require.Equal(t, want, Nearest(name, candidates), name)
	}
}
