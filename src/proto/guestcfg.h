/* Keys of the CONFIG frame: what the guest program makes of a bare VM. All paths are guest paths. The guest applies the
 * parts in this order: host name, root disk, shares, folders, binds, links, files, state. None of it is secret. */
#pragma once

enum guestcfg_key {
	GC_HOSTNAME = 1, /* string */
	GC_ROOT,	 /* string: virtio-blk serial or device node of the root disk, such as "/dev/vdb" */
	GC_ROOT_FS,	 /* string: "ext4" */
	GC_SHARE_TAG,	 /* string: virtio-fs tag whose root holds the folders that GC_SUB names; mounted at GC_SHARE_AT */
	GC_BIND,	 /* records GC_TARGET, GC_RO, and GC_SUB or GC_TAG; afterwards TARGET must be on virtio-fs, else FAIL */
	GC_SUB,		 /* string: folder of the share that is bound onto TARGET */
	GC_TAG,		 /* string: a virtio-fs of its own that is mounted on TARGET (hosts without mount namespaces) */
	GC_TARGET,	 /* string, absolute; missing folders are made */
	GC_RO,		 /* u64 0 or 1: also read-only in the guest's own mount table (the host enforces it anyway) */
	GC_LINK,   /* records GC_PATH, GC_TARGET: symlink PATH -> TARGET, replacing what is there */
	GC_PATH,
	GC_FILE,    /* records GC_PATH, GC_MODE, GC_CONTENT: written whole, replacing what is there */
	GC_MODE,    /* u64 */
	GC_CONTENT, /* bytes */
	GC_DIR,	    /* records GC_PATH, GC_MODE: folder made if missing */
	GC_FLAGS,   /* u64 of enum guestcfg_flag */
	GC_ROOT_BYTES, /* u64: what of an ext4 root disk may be used; the device is at least that large */
	GC_NET,	    /* records GC_NET_*: eth0 gets these; without it the interface stays down */
	GC_NET_MTU, /* u64 */
	GC_NET_MAC, /* 6 bytes, the gateway's */
	GC_NET_V4,  /* 9 bytes: address, gateway, prefix length */
	GC_NET_V6,  /* 33 bytes: the same */
	GC_PORTS,   /* records GC_AUTO, GC_PORT*: watch what listens; needs GC_NET with GC_NET_V4 */
	GC_AUTO,    /* u64 0 or 1: tell the host of every listener by CTL_PORT */
	GC_PORT,    /* u64 1..65535: published; a listener on loopback is made reachable */
	GC_PROBE,   /* records GC_PROBE_*: try this while setting up; READY has a CTL_K_PROBE for each, in the same order */
	GC_PROBE_TCP,  /* u64 0 or 1; 0: UDP */
	GC_PROBE_ADDR, /* 5 or 17 bytes: 4 or 6, and the address */
	GC_PROBE_PORT, /* u64 */
	GC_PROBE_SAY,  /* bytes to send; may be absent with TCP */
	GC_PROBE_MS,   /* u64: what has not come by then is ETIMEDOUT */
	GC_CA,	       /* records GC_CA_*: certificates that the guest's programs shall trust */
	GC_CA_OWN,     /* bytes: the session's root certificate in PEM form */
	GC_CA_HASH,    /* u64: of its subject, for the link in /etc/ssl/certs */
	GC_CA_HOST,    /* bytes: certificates of the host's own authorities in PEM form, from --trust-host-ca */
	GC_STATE,      /* records GC_PATH (below GC_STATE_AT, relative), GC_FORM, and what the form needs: a file
			* of the project's state, its user's alone; this and other guests have written it, it is not believed */
	GC_DB,	       /* records GC_PATH, GC_SUB and perhaps GC_LINK: guest/dbs.h */
	GC_FORM,       /* u64 enum guestcfg_form */
	GC_RULE,       /* records GC_RULE_KIND, GC_KEY*, GC_VALUE, GC_WITH: applied in their order */
	GC_RULE_KIND,  /* u64 enum guestcfg_rule */
	GC_KEY,	       /* string: member name, the outermost first */
	GC_VALUE,      /* bytes: JSON text, or the lines of a TOML table */
	GC_WITH,       /* string: the rule is left out where that program is missing */
	GC_LIVE,       /* string: the host name of another session of the project that is alive; see GC_F_LIVE */
};

/* How a file of the state is brought to what must hold (cli page 11.1). One that is a link, no regular file, too large or
 * not of its form is renamed NAME GC_STATE_ASIDE, and a new one is begun. */
enum guestcfg_form {
	GC_FORM_JSON,  /* an object: GC_RULE */
	GC_FORM_JSONC, /* the same with comments, which stay */
	GC_FORM_TOML,  /* GC_RULE_TABLE; GC_CONTENT: what a new file begins with */
	GC_FORM_TEXT,  /* GC_CONTENT, replaced whole */
	GC_FORM_BLOCK, /* GC_CONTENT between two marker lines; what stands around them stays */
	GC_FORM_NONE,  /* removed */
	GC_FORM_LINK,  /* GC_TARGET below GC_HOST_AT: a link, where nothing else has that name */
	GC_FORM_SWEEP, /* PATH is a folder: links of GC_FORM_LINK in it that lead nowhere go */
	GC_FORMS
};

enum guestcfg_rule {
	GC_RULE_SET,	 /* GC_KEY+, GC_VALUE: is that, whatever was there */
	GC_RULE_DEFAULT, /* the same where there is no such member */
	GC_RULE_DROP,	 /* GC_KEY+: is not there; with GC_VALUE only one that is just that. An object that gets empty goes, too */
	/* GC_KEY+ name members of the top level that are one login, GC_VALUE is an object with those that are to be there. Not
	 * touched when the login in the file is not ours; without GC_VALUE ours goes. Ours: a placeholder's shape in it. */
	GC_RULE_LOGIN,
	/* GC_KEY+ lead to a list of strings; those that look like the end of a placeholder go, GC_VALUE, a string, comes. */
	GC_RULE_TAIL,
	GC_RULE_TABLE, /* GC_KEY+ name a table of TOML; GC_VALUE: its lines, for one that is not there */
	/* GC_KEY+ lead to an object whose "command" is GC_WITH: it goes where the guest does not have that program. */
	GC_RULE_ORPHAN,
	GC_RULES
};

#define GC_SEED "/opt/agent-vm/seed-claude-plugins.sh" /* of images of the older program */
#define GC_HOOK_ENV "/run/agent-vm/hook-env" /* what the project's hook has left, written when it ends */
#define GC_STATE_AT "/agent-vm-state"
#define GC_STATE_ASIDE ".agent-vm-bad"
#define GC_STATE_MAX (8 << 20) /* cli page 11.1 */
#define GC_HOST_AT "/run/agent-vm/host" /* the user's own settings, read-only */
#define GC_DB_AT "/var/lib/agent-vm/db"
#define GC_DBS_MAX 8
#define GC_LIVE_MAX 64
#define GC_KEYS_MAX 8
#define GC_TAIL 20 /* characters */

enum guestcfg_flag {
	GC_F_NO_IMAGE_VERSION = 1, /* do not check /etc/agent-vm-image-version (a root disk that is no image of ours) */
	GC_F_LIVE = 2,		   /* GC_LIVE names all there are; without it any session may be alive */
	GC_F_ALL = 3,
};

#define GC_PROBES_MAX 16
#define GC_PROBE_SAY_MAX 512
#define GC_PROBE_REPLY_MAX 512
#define GC_PROBE_MS_MAX 60000

#define GC_CA_PEM "/run/agent-vm/ca.pem"	      /* GC_CA_OWN alone */
#define GC_CA_EXTRA "/run/agent-vm/extra-ca.pem"    /* with GC_CA_HOST: both */
#define GC_CA_BUNDLE "/etc/ssl/certs/ca-certificates.crt" /* afterwards it is there, with all of them in it */
/* The bundle as a trust store of Java, where Java has none that can be added to; only there a program gets the variable. */
#define GC_JAVA_STORE "/run/agent-vm/java-cacerts"
#define GC_JAVA_VAR "JAVA_TOOL_OPTIONS"
#define GC_JAVA_VALUE "-Djavax.net.ssl.trustStore=" GC_JAVA_STORE

#define GC_NET_IF "eth0"
#define GC_NET_MTU_MAX 65520

#define GC_BINDS_MAX 80
#define GC_PORTS_MAX 64
#define GC_AUTO_PORT_MIN 1024 /* lower ones are not told of */
#define GC_SHARE_AT "/run/agent-vm/share" /* where the share itself is mounted in the guest */
