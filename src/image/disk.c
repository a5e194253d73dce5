#include "image/disk.h"

#include <sha256.h>
#include <stdio.h>
#include <string.h>

void disk_key(uint64_t bytes, const char (*diff_ids)[IM_DIGEST + 1], size_t n, char ret[IM_DIGEST + 1])
{
	char head[64];
	SHA2_CTX sha;

	SHA256Init(&sha);
	(void)snprintf(head, sizeof(head), "agent-vm disk %d\n%llu\n", DISK_FORMAT, (unsigned long long)bytes);
	SHA256Update(&sha, (const uint8_t *)head, strlen(head));
	for (size_t i = 0; i < n; i++) {
		SHA256Update(&sha, (const uint8_t *)diff_ids[i], IM_DIGEST);
		SHA256Update(&sha, (const uint8_t *)"\n", 1);
	}
	(void)SHA256End(&sha, ret);
}

void disk_ids(const char key[IM_DIGEST + 1], uint8_t ret_uuid[16], uint8_t ret_seed[16])
{
	uint8_t sum[SHA256_DIGEST_LENGTH];
	SHA2_CTX sha;

	SHA256Init(&sha);
	SHA256Update(&sha, (const uint8_t *)key, IM_DIGEST);
	SHA256Final(sum, &sha);
	memcpy(ret_uuid, sum, 16);
	ret_uuid[6] = (uint8_t)((ret_uuid[6] & 0x0f) | 0x80);
	ret_uuid[8] = (uint8_t)((ret_uuid[8] & 0x3f) | 0x80);
	memcpy(ret_seed, sum + 16, 16);
}
