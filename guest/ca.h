/* Certificates that the guest's programs shall trust (command line page, section 10.3): what update-ca-certificates and
 * its relatives would do, without running a program of the image. */
#pragma once

#include "guest/config.h"

/**
 * ca_install() - Put them where programs look
 * @ret_note:	Something to be told, static; NULL: nothing
 *
 * Return: 0; negative errno with @err set
 */
int ca_install(const struct config_ca *ca, const char **ret_note, struct err *err);
