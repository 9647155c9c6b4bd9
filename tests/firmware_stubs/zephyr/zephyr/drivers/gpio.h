/* The names and types of Zephyr's GPIO and devicetree documentation that are in use. */
#ifndef ZEPHYR_GPIO_H
#define ZEPHYR_GPIO_H
#include <stdint.h>

#include "record.h"
typedef uint8_t gpio_pin_t;
typedef uint16_t gpio_dt_flags_t;
typedef uint32_t gpio_flags_t;
struct device {
    const char *name;
};
struct gpio_dt_spec {
    const struct device *port;
    gpio_pin_t pin;
    gpio_dt_flags_t dt_flags;
};
#define GPIO_OUTPUT_INACTIVE (1u << 17 | 1u << 18)
#define STUB_NODE_zephyr_user 1
#define DT_PATH(name) STUB_NODE_##name
#define STUB_PROPERTY_jm_gpios 0
/* Pins 1 and 2 of the port, as in the overlay of the example. */
#define GPIO_DT_SPEC_GET_BY_IDX(node, property, index) \
    {0, (gpio_pin_t)((node) + STUB_PROPERTY_##property + (index)), 0}
static inline int gpio_pin_configure_dt(const struct gpio_dt_spec *spec, gpio_flags_t flags)
{
    printf("output %d %d\n", spec->pin, flags == GPIO_OUTPUT_INACTIVE);
    return getenv("STUB_FAILS") ? -5 : 0;
}
static inline int gpio_pin_set_dt(const struct gpio_dt_spec *spec, int value)
{
    record_pin(spec->pin, value);
    return 0;
}
#endif
