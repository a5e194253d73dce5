/* Which walls stand around the monitor, in words (design section 5.5). */
#pragma once

#include <stdbool.h>

/**
 * walls_warning() - What is missing of the cage
 * @walls:	enum cage_wall, as agent-vm-vmm reported
 * @root:	Whether the monitor runs with root's uid
 *
 * CAGE_USER_NS and CAGE_SUBIDS do not count: root can do without the first, and the second is no wall.
 *
 * Return: NULL when all stand, else the text of a warning; caller owns
 */
char *walls_warning(unsigned walls, bool root);
