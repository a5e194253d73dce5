/* --publish, --allow-egress, --allow-ssh. */
#include "cli/specs.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

#define PUBLISH_FORM "[BIND:]HOST:GUEST[/tcp|/udp]"
#define EGRESS_FORM "IP, CIDR or NAME with an optional :PORT"
#define NAME_MAX_LEN 253 /* RFC 1035 section 2.3.4, as text */
#define LABEL_MAX 63

/* Decimal port; what is no number is @ret 0 and false, so that a wrong shape and a wrong port are told apart. */
static bool is_number(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isdigit((unsigned char)s[i]))
			return false;
	return n > 0;
}

static int port_parse(const char *s, size_t n, uint16_t *ret, struct err *err)
{
	AUTO_FREE(char, text);
	uint64_t v;

	text = xstrndup(s, n);
	if (str_u64(text, UINT16_MAX, &v) < 0 || v == 0)
		return err_set(err, -EINVAL, "%s is no port; ports are 1 to 65535", text);
	*ret = (uint16_t)v;
	return 0;
}

static int publish_shape(const char *s, struct err *err)
{
	uint64_t v;

	if (str_u64(s, UINT16_MAX, &v) == 0 && v != 0)
		return err_set(err, -EINVAL, "not " PUBLISH_FORM "; for one port write --publish %s:%s", s, s);
	return err_set(err, -EINVAL, "not " PUBLISH_FORM "; write it as in --publish 3000:3000");
}

/* BIND with the ':' behind it cut off. */
static int bind_parse(const char *s, size_t n, struct publish *p, struct err *err)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, shown);

	shown = str_escape(s, n);
	if (n > 2 && s[0] == '[' && s[n - 1] == ']') {
		text = xstrndup(s + 1, n - 2);
		if (inet_pton(AF_INET6, text, &p->addr) == 1) {
			p->family = AF_INET6;
			return 0;
		}
	} else {
		text = xstrndup(s, n);
		if (inet_pton(AF_INET, text, &p->addr) == 1) {
			p->family = AF_INET;
			return 0;
		}
		if (inet_pton(AF_INET6, text, &p->addr) == 1)
			return err_set(err, -EINVAL, "an IPv6 address needs brackets; write --publish [%s]:HOST:GUEST",
				       text);
	}
	return err_set(err, -EINVAL, "'%s' is no IP address; write one such as 127.0.0.1, or [::1], or leave it out",
		       shown);
}

int publish_parse(const char *s, struct publish *ret, struct err *err)
{
	struct publish p = { .family = AF_UNSPEC };
	size_t n = strlen(s), guest, host;
	int r;

	if (n > 4 && s[n - 4] == '/') {
		if (strcmp(s + n - 3, "udp") == 0)
			p.udp = true;
		else if (strcmp(s + n - 3, "tcp") != 0)
			return publish_shape(s, err);
		n -= 4;
	}
	/* From the end, because an address may have colons of its own. */
	for (guest = n; guest > 0 && s[guest - 1] != ':'; guest--)
		;
	if (guest == 0 || !is_number(s + guest, n - guest))
		return publish_shape(s, err);
	for (host = guest - 1; host > 0 && s[host - 1] != ':'; host--)
		;
	if (!is_number(s + host, guest - 1 - host) || host == 1)
		return publish_shape(s, err);
	if (host > 0) {
		r = bind_parse(s, host - 1, &p, err);
		if (r < 0)
			return r;
	}
	r = port_parse(s + host, guest - 1 - host, &p.host, err);
	if (r < 0)
		return r;
	r = port_parse(s + guest, n - guest, &p.guest, err);
	if (r < 0)
		return r;
	*ret = p;
	return 0;
}

static bool any_address(const struct publish *p)
{
	static const struct in6_addr zero;

	return memcmp(&p->addr, &zero, p->family == AF_INET ? 4 : 16) == 0;
}

static bool loopback(const struct publish *p)
{
	struct in_addr v4;

	if (p->family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&p->addr);
	memcpy(&v4, &p->addr, sizeof(v4));
	return v4.s_addr == htonl(INADDR_LOOPBACK);
}

bool publish_meets(const struct publish *a, const struct publish *b)
{
	if (a->host != b->host || a->udp != b->udp)
		return false;
	if (a->family == AF_UNSPEC && b->family == AF_UNSPEC)
		return true;
	if (a->family == AF_UNSPEC)
		return any_address(b) || loopback(b);
	if (b->family == AF_UNSPEC)
		return any_address(a) || loopback(a);
	if (a->family != b->family)
		return false;
	return any_address(a) || any_address(b) || memcmp(&a->addr, &b->addr, a->family == AF_INET ? 4 : 16) == 0;
}

static bool is_name(const char *s)
{
	size_t n = strlen(s), label = 0;
	bool digits = true;

	if (n > 0 && s[n - 1] == '.')
		n--;
	if (n == 0 || n > NAME_MAX_LEN)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '.') {
			if (label == 0 || s[i - 1] == '-')
				return false;
			label = 0;
			digits = true;
			continue;
		}
		if (!isalnum((unsigned char)s[i]) && s[i] != '_' && (s[i] != '-' || label == 0))
			return false;
		if (!isdigit((unsigned char)s[i]))
			digits = false;
		if (++label > LABEL_MAX)
			return false;
	}
	/* A last label of digits only is an address that has been mistyped. */
	return label > 0 && s[n - 1] != '-' && !digits;
}

static int dest_shape(struct err *err)
{
	return err_set(err, -EINVAL,
		       "not " EGRESS_FORM "; write it as 192.168.1.10:5432, 10.0.0.0/8, db.example or [fd12::1]:5432");
}

/* IP or CIDR into @e: 1; a name: 0; neither: negative. */
static int address_parse(const char *s, struct policy_rule *e)
{
	if (prefix_parse(s, &e->net) == 0)
		return 1;
	return strchr(s, '/') ? -EINVAL : 0;
}

/* ":PORT" or ":LO-HI" behind the host, or nothing. */
static int ports_parse(const char *s, struct policy_rule *e, struct err *err)
{
	size_t first, second;
	int r;

	if (*s == '\0')
		return 0;
	if (*s++ != ':')
		return dest_shape(err);
	first = strcspn(s, "-");
	if (!is_number(s, first))
		return dest_shape(err);
	r = port_parse(s, first, &e->lo, err);
	if (r < 0)
		return r;
	e->hi = e->lo;
	if (s[first] == '\0')
		return 0;
	second = strlen(s + first + 1);
	if (!is_number(s + first + 1, second))
		return dest_shape(err);
	r = port_parse(s + first + 1, second, &e->hi, err);
	if (r < 0)
		return r;
	if (e->lo > e->hi)
		return err_set(err, -EINVAL, "the range ends before it begins; write the smaller port first");
	return 0;
}

/* What lies in NAT64's well-known prefix is judged as the IPv4 address inside, so that is what a rule for it means. */
static void nat64_put(struct policy_rule *e)
{
	struct addr v4;

	if (prefix_in(&e->net, &policy_nat64) && addr_nat64(&e->net.addr, &policy_nat64, &v4)) {
		e->net.addr = v4;
		e->net.bits -= policy_nat64.bits;
	}
}

/* In the form in which names are tied: lower case, no dot at the end. is_name() has bounded it. */
static void name_put(struct policy_rule *e, const char *name)
{
	size_t n = 0;

	for (; name[n] && n < POLICY_NAME_MAX; n++)
		e->name[n] = (char)tolower((unsigned char)name[n]);
	if (n > 0 && e->name[n - 1] == '.')
		e->name[n - 1] = '\0';
}

/* Port 22 of one of GitHub's names, or of one address that it serves git at. A network around it stays possible, and opens the
 * rest of it. */
static bool is_github_ssh(const struct policy_rule *e)
{
	if (e->lo != 22 || e->hi != 22 || !e->tcp)
		return false;
	if (e->name[0] != '\0')
		return policy_name_is_github(e->name);
	return e->net.bits == (e->net.addr.family == AF_INET ? 32 : 128) && policy_addr_is_github(&e->net.addr);
}

static int no_github_ssh(struct err *err)
{
	return err_set(err, -EINVAL, "SSH to GitHub cannot be held to single repositories; leave it out, git reaches GitHub by https");
}

/* What no option opens is a mistake. */
static int dest_check(const struct policy_rule *e, struct err *err)
{
	if (e->name[0] == '\0' && policy_never(&e->net))
		return err_set(err, -EINVAL, "nothing can open this address; leave the option out");
	return is_github_ssh(e) ? no_github_ssh(err) : 0;
}

static int dest_parse(const char *s, struct policy_rule *ret, struct err *err)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, host);
	struct policy_rule e = { .tcp = true, .udp = true };
	size_t n = strlen(s);
	char *rest;
	int r;

	if (n > 4 && (strcmp(s + n - 4, "/tcp") == 0 || strcmp(s + n - 4, "/udp") == 0)) {
		e.udp = s[n - 3] == 'u';
		e.tcp = !e.udp;
		n -= 4;
	}
	text = xstrndup(s, n);
	if (*text == '[') {
		rest = strchr(text, ']');
		if (!rest)
			return dest_shape(err);
		host = xstrndup(text + 1, (size_t)(rest - text) - 1);
		rest++;
		r = address_parse(host, &e);
		if (r != 1 || e.net.addr.family != AF_INET6)
			return dest_shape(err);
	} else {
		/* Two colons or more without brackets: an IPv6 address, and no port. */
		rest = strchr(text, ':');
		if (!rest || strchr(rest + 1, ':'))
			rest = text + n;
		host = xstrndup(text, (size_t)(rest - text));
		if (strchr(host, '*'))
			return err_set(err, -EINVAL, "a name must be whole, without '*'; give the option once for each name");
		r = address_parse(host, &e);
		if (r < 0 || (r == 0 && !is_name(host)))
			return dest_shape(err);
	}
	if (ports_parse(rest, &e, err) < 0)
		return -EINVAL;
	if (r == 1)
		nat64_put(&e);
	else
		name_put(&e, host);
	*ret = e;
	return 0;
}

int egress_parse(const char *s, struct policy_rule *ret, struct err *err)
{
	struct policy_rule e;
	int r = dest_parse(s, &e, err);

	if (r == 0)
		r = dest_check(&e, err);
	if (r == 0)
		*ret = e;
	return r;
}

int ssh_dest_parse(const char *s, struct policy_rule *ret, struct err *err)
{
	struct policy_rule e;
	int r;

	if (strchr(s, '/') || dest_parse(s, &e, NULL) < 0 || e.lo != e.hi)
		return err_set(err, -EINVAL, "not HOST[:PORT]; write it as in --allow-ssh git.example.org:22");
	e.udp = false;
	if (e.lo == 0)
		e.lo = e.hi = 22;
	if (policy_name_is_github(e.name))
		return no_github_ssh(err);
	r = dest_check(&e, err);
	if (r == 0)
		*ret = e;
	return r;
}
