/* What happens, one line each, numbered by their order: "pin 7 1", "model invoke". */
#ifndef RECORD_H
#define RECORD_H
#include <stdio.h>
#include <stdlib.h>
#ifdef __cplusplus
extern "C" {
#endif
void record_pin(int pin, int level);
void record(const char *what);
/* An example that runs for ever ends at its third pause. */
void record_pause(void);
void record_pending(void);
#ifdef __cplusplus
}
#endif
#endif
