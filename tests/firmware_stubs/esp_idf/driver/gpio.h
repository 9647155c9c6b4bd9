/* The names and types of the ESP-IDF programming guide (GPIO) that are in use. */
#ifndef ESP_GPIO_H
#define ESP_GPIO_H
#include <stdint.h>

#include "record.h"
typedef int esp_err_t;
typedef enum { GPIO_NUM_NC = -1, GPIO_NUM_4 = 4, GPIO_NUM_6 = 6 } gpio_num_t;
typedef enum { GPIO_MODE_DISABLE = 0, GPIO_MODE_INPUT = 1, GPIO_MODE_OUTPUT = 2 } gpio_mode_t;
static inline esp_err_t gpio_reset_pin(gpio_num_t pin) { return pin < 0 ? 0x102 : 0; }
static inline esp_err_t gpio_set_direction(gpio_num_t pin, gpio_mode_t mode)
{
    printf("output %d %d\n", (int)pin, mode == GPIO_MODE_OUTPUT);
    return getenv("STUB_FAILS") ? 0x102 : 0;
}
static inline esp_err_t gpio_set_level(gpio_num_t pin, uint32_t level)
{
    record_pin((int)pin, (int)level);
    return 0;
}
#endif
