#include "image/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/macros.h"
#include "base/str.h"

struct address {
	uint8_t b[16]; /* IPv4 as ::ffff:a.b.c.d */
};

static const uint8_t v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

static bool address_parse(const char *s, struct address *ret)
{
	struct in_addr a4;

	if (inet_pton(AF_INET6, s, ret->b) == 1)
		return true;
	if (inet_pton(AF_INET, s, &a4) != 1)
		return false;
	memcpy(ret->b, v4_prefix, sizeof(v4_prefix));
	memcpy(ret->b + 12, &a4, 4);
	return true;
}

static bool address_in(const struct address *a, const struct address *net, unsigned int bits)
{
	if (memcmp(a->b, net->b, bits / 8) != 0)
		return false;
	return bits % 8 == 0 || ((a->b[bits / 8] ^ net->b[bits / 8]) >> (8 - bits % 8)) == 0;
}

/* "NET/BITS" or a plain address. */
static bool address_in_text(const struct address *a, const char *cidr)
{
	char net[INET6_ADDRSTRLEN];
	const char *slash = strchrnul(cidr, '/');
	struct address n;
	uint64_t bits = 0;
	bool v4;

	if ((size_t)(slash - cidr) >= sizeof(net))
		return false;
	memcpy(net, cidr, (size_t)(slash - cidr));
	net[slash - cidr] = '\0';
	if (!address_parse(net, &n))
		return false;
	v4 = !strchr(net, ':');
	if (*slash == '\0')
		bits = 128;
	else if (str_u64(slash + 1, v4 ? 32 : 128, &bits) < 0)
		return false;
	else if (v4)
		bits += 96;
	return address_in(a, &n, (unsigned int)bits);
}

static bool in_any(const struct address *a, const char *const *nets)
{
	for (; *nets; nets++)
		if (address_in_text(a, *nets))
			return true;
	return false;
}

static bool name_is_below(const char *name, const char *domain)
{
	size_t n = strlen(name), d = strlen(domain);

	if (n > 0 && name[n - 1] == '.')
		n--;
	return n >= d && strncasecmp(name + n - d, domain, d) == 0 && (n == d || name[n - d - 1] == '.');
}

bool host_is_loopback(const char *host)
{
	static const char *const nets[] = { "127.0.0.0/8", "::1", NULL };
	struct address a;

	return address_parse(host, &a) ? in_any(&a, nets) : name_is_below(host, "localhost");
}

enum reach host_reach(const char *host)
{
	static const char *const private[] = { "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7",
					       "0.0.0.0/8", "::", NULL };
	/* The last two are metadata services that do not have an address of the link. */
	static const char *const link[] = { "169.254.0.0/16", "fe80::/10", "fd00:ec2::254", "100.100.100.200", NULL };
	struct address a;

	if (!address_parse(host, &a))
		return host_is_loopback(host) ? REACH_PRIVATE : REACH_PUBLIC;
	if (in_any(&a, link))
		return REACH_LINK;
	return host_is_loopback(host) || in_any(&a, private) ? REACH_PRIVATE : REACH_PUBLIC;
}

/* One entry of no_proxy: "*", a name with its subdomains, an address, a net; each with an optional port. */
static bool entry_matches(char *entry, const char *host, uint16_t port)
{
	char *colon = strrchr(entry, ':'), *end;
	struct address a;
	uint64_t p;

	if (strcmp(entry, "*") == 0)
		return true;
	end = *entry == '[' ? strchr(entry, ']') : NULL;
	if (end) {
		if (end[1] == ':' && (str_u64(end + 2, UINT16_MAX, &p) < 0 || p != port))
			return false;
		*end = '\0';
		entry++;
	} else if (colon && strchr(entry, ':') == colon) {
		if (str_u64(colon + 1, UINT16_MAX, &p) < 0 || p != port)
			return false;
		*colon = '\0';
	}
	if (address_parse(host, &a))
		return address_in_text(&a, entry);
	entry += strspn(entry, ".");
	return *entry && name_is_below(host, entry);
}

static bool is_excepted(const char *no_proxy, const char *host, uint16_t port)
{
	AUTO_FREE(char, copy);
	char *save = NULL;

	copy = xstrdup(no_proxy);
	for (char *e = strtok_r(copy, ", \t", &save); e; e = strtok_r(NULL, ", \t", &save))
		if (entry_matches(e, host, port))
			return true;
	return false;
}

static int hex_of(char c)
{
	const char *digits = "0123456789abcdef", *at;

	at = c ? strchr(digits, c | 0x20) : NULL;
	return at ? (int)(at - digits) : -1;
}

/* Decode %XX in place; false when it is broken or gives a control byte. */
static bool percent_decode(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (*s == '%') {
			if (hex_of(s[1]) < 0 || hex_of(s[2]) < 0)
				return false;
			*to = (char)(hex_of(s[1]) * 16 + hex_of(s[2]));
			s += 2;
		} else {
			*to = *s;
		}
		if ((unsigned char)*to < 0x20 || *to == 0x7f)
			return false;
		to++;
	}
	*to = '\0';
	return true;
}

static bool host_text_is_good(const char *s)
{
	return *s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_[]:") == strlen(s);
}

/* [user[:password]@]host[:port][/] */
static bool proxy_parse(const char *text, struct proxy *ret)
{
	AUTO_FREE(char, copy);
	char *host, *at, *password = NULL, *port, *end;
	uint64_t n = 80;

	copy = xstrdup(text);
	copy[strcspn(copy, "/?#")] = '\0';
	host = copy;
	at = strrchr(copy, '@');
	if (at) {
		*at = '\0';
		host = at + 1;
		password = strchr(copy, ':');
		if (password)
			*password++ = '\0';
		if (!percent_decode(copy) || (password && !percent_decode(password)))
			return false;
	}
	end = *host == '[' ? strchr(host, ']') : host;
	port = end ? strchr(end, ':') : NULL;
	if (port) {
		*port++ = '\0';
		if (str_u64(port, UINT16_MAX, &n) < 0 || n == 0)
			return false;
	}
	if (!end || !host_text_is_good(host))
		return false;
	*ret = (struct proxy){ .host = xstrdup(host), .port = (uint16_t)n };
	if (at) {
		ret->user = xstrdup(copy);
		ret->password = xstrdup(password ? password : "");
	}
	return true;
}

static const char *env_of(const char *(*env)(const char *), const char *lower, const char *upper)
{
	const char *v = env(lower);

	if (!v || *v == '\0')
		v = env(upper);
	return v && *v ? v : NULL;
}

int proxy_upstream(bool https, const char *(*env)(const char *), struct proxy *ret, struct err *note)
{
	static const char *const names[][2] = {
		{ "https_proxy", "HTTPS_PROXY" }, { "all_proxy", "ALL_PROXY" }, { "http_proxy", "HTTP_PROXY" },
	};
	const char *value = NULL, *name = NULL, *scheme;
	AUTO_FREE(char, kind);

	note->text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(names) && !value; i++) {
		const char *const *n = names[https ? i : ARRAY_SIZE(names) - 1 - i];

		name = n[0];
		value = env_of(env, n[0], n[1]);
	}
	if (!value)
		return 0;
	scheme = strstr(value, "://");
	if (scheme && strncasecmp(value, "http://", 7) != 0) {
		kind = str_escape(value, MIN((size_t)(scheme - value), (size_t)16));
		(void)err_set(note, -EPROTONOSUPPORT, "%s: a proxy of kind %s is not supported; going direct", name, kind);
		return 0;
	}
	if (!proxy_parse(scheme ? scheme + 3 : value, ret))
		return err_set(note, -EINVAL, "%s: not http://[USER:PASSWORD@]HOST[:PORT]; correct or unset it", name);
	ret->variable = name;
	return 1;
}

const char *proxy_exceptions(const char *(*env)(const char *))
{
	return env_of(env, "no_proxy", "NO_PROXY");
}

int proxy_for(bool https, const char *host, uint16_t port, const char *(*env)(const char *), struct proxy *ret,
	      struct err *note)
{
	const char *no = proxy_exceptions(env);

	note->text[0] = '\0';
	if (host_reach(host) != REACH_PUBLIC || (no && is_excepted(no, host, port)))
		return 0;
	return proxy_upstream(https, env, ret, note);
}

void proxy_done(struct proxy *p)
{
	free(p->host);
	free(p->user);
	if (p->password)
		explicit_bzero(p->password, strlen(p->password));
	free(p->password);
	*p = (struct proxy){ 0 };
}
