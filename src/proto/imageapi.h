/* The version of the interface between launcher and image, as the image says it in a file. The unpacker's launcher reads what
 * it found there, the guest the file itself: both must come to the same answer. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The versions that launcher and guest of this build know. */
#define IMAGE_API_MIN 1
#define IMAGE_API_MAX 1
#define IMAGE_API_FILE "/etc/agent-vm-image-version"
#define IMAGE_API_FOUND 72 /* room for the API version as found: 16 bytes, each at most \xNN, and the end */

/**
 * image_api_parse() - Content of /etc/agent-vm-image-version
 * @n:		At most 32 bytes are looked at
 * @ret_found:	For messages: at most 16 bytes without the white space around, control bytes as \xNN
 *
 * Source: image page 1.1: an unsigned decimal, white space around it allowed.
 *
 * Return: the version; 0 when there is none or it is garbled
 */
uint32_t image_api_parse(const void *p, size_t n, char ret_found[IMAGE_API_FOUND]);

/**
 * image_api_read() - The same of a file, which must be a regular one and no link
 * @path:	Of the file
 *
 * Return: 0 and both results as above; negative errno: it cannot be opened or read; -ELOOP: a link; -EINVAL: no file
 */
int image_api_read(const char *path, uint32_t *ret, char ret_found[IMAGE_API_FOUND]);
