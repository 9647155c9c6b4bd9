#include "record.h"
#define board_init() record("board")
#define board_pin(line, level) record_pin(line, level)
