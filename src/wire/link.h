/* The link to the monitor: a 4-byte big-endian length, then an Ethernet frame. Frames out stand in one batch of pieces; what
 * the link does not want is taken back, so that nothing waits here but the rest of one frame and what has no other home. */
#pragma once

#include "wire/wire.h"

/* Read once and hand every frame on. */
void link_read(struct wire *w);
/* Room again. */
void link_writable(struct wire *w);

/**
 * link_hdr() - Begin a frame
 * @w:		A full batch is written first
 *
 * The caller writes the Ethernet header and what follows into the memory returned, TX_HDR - LINK_LEN bytes at most, adds
 * payload with link_piece(), and ends with link_end_flow() or link_end_keep().
 *
 * Return: where the frame begins; NULL when the link is full
 */
uint8_t *link_hdr(struct wire *w, size_t bytes, unsigned int pieces);
/* A piece that stays valid until the batch is written: the ring of a flow, the stage, the read buffer. */
void link_piece(struct wire *w, const void *p, size_t n);
/* @n bytes were written into the header's memory. */
void link_end_keep(struct wire *w, size_t n);
void link_end_flow(struct wire *w, size_t n, struct flow *f, uint32_t seq, uint32_t len, uint32_t old_max);
/* Whether link_stage() would give @n bytes; writes the batch for it. */
bool link_room(struct wire *w, size_t n);
/* Memory of the batch for @n bytes; NULL when the link is full or @n is too much for one batch. */
uint8_t *link_stage(struct wire *w, size_t n);
/* Write the batch. */
void link_flush(struct wire *w);
/* A small frame that belongs to no flow, into the ring of 256. NULL: full, counted. */
uint8_t *link_small(struct wire *w, size_t n);
