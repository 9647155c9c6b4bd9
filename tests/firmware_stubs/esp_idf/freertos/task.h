#include "record.h"
#define vTaskDelay(ticks) ((void)(ticks), record_pause())
