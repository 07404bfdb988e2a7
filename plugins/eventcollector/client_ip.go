package eventcollector

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

func parseProxies(list []string) (proxies []netip.Prefix, err error) {
	for i, text := range list {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("%s[%d] must be an address or a network such as 10.0.0.0/8", fieldTrustedProxies, i)
			}
			prefix = netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen())
		}
		proxies = append(proxies, prefix.Masked())
	}
	return proxies, nil
}

// clientIP returns the address of the client, empty if it is unknown. It reads
// X-Forwarded-For from the end, where the trusted proxies append: everything
// before the first address that is not a proxy's could be forged by the client.
func clientIP(r *http.Request, proxies []netip.Prefix) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	client := peer.Addr().Unmap().WithZone("")
	forwarded := r.Header.Values("X-Forwarded-For")
	if len(proxies) == 0 || len(forwarded) == 0 {
		return client.String()
	}
	rest := strings.Join(forwarded, ",")
	for rest != "" && isProxy(client, proxies) {
		hop := rest
		if i := strings.LastIndexByte(rest, ','); i >= 0 {
			rest, hop = rest[:i], rest[i+1:]
		} else {
			rest = ""
		}
		ip, ok := forwardedAddr(strings.TrimSpace(hop))
		if !ok {
			break
		}
		client = ip
	}
	return client.String()
}

// forwardedAddr parses an address of X-Forwarded-For. Some proxies add a port.
func forwardedAddr(hop string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(strings.Trim(hop, "[]"))
	if err != nil {
		withPort, err := netip.ParseAddrPort(hop)
		if err != nil {
			return netip.Addr{}, false
		}
		ip = withPort.Addr()
	}
	return ip.Unmap().WithZone(""), true
}

func isProxy(ip netip.Addr, proxies []netip.Prefix) bool {
	for _, prefix := range proxies {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}
