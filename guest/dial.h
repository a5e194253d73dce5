/* In a child of spawn(): one TCP connection, whose bytes go through the stream's channels (DIAL of proto/ctl.h). */
#pragma once

#include <stdint.h>

#define DIAL_MS 20000 /* for the connection */

/**
 * dial() - Connect, close @status, and pass bytes on until both directions have ended
 * @family:	4 or 6
 * @in:		What is sent
 * @out:	What comes
 *
 * Return: exit status; why there is no connection is said on @status
 */
int dial(uint8_t family, const uint8_t addr[16], uint16_t port, int in, int out, int status);
