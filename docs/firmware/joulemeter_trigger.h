/* SPDX-License-Identifier: Apache-2.0
 *
 * joulemeter_trigger.h - pins that tell an energy meter when the model runs. C99 and C++11, this one file.
 *
 *     #define JM_BACKEND_ARDUINO            or _STM32_HAL, _STM32_BSRR, _ZEPHYR, _ESP_IDF, or none: see below
 *     #define JM_PINS 2, 3                  line 0 marks the inference, lines 1 to 7 its phases
 *     #include "joulemeter_trigger.h"
 *
 *     jm_init();                            once: every line an output, and low
 *     jm_inference_begin();                 line 0 goes high
 *     jm_phase_begin(1);                    line 1 goes high
 *     jm_phase_end(1);
 *     jm_inference_end();
 *     jm_empty_pairs(100);                  pulses without work: the width that the edges themselves have
 *     jm_stamp_init(); jm_stamp();          instead of begin and end: falling edges as EEMBC's runners want them
 *
 * Without a backend, define JM_PIN_HIGH(line) and JM_PIN_LOW(line), JM_LINES where it is not 1, and JM_PIN_SETUP(line)
 * if the pins are not set up elsewhere.
 *
 * The compiler moves no access to memory over an edge. What it computes in registers alone it may still move: where
 * the model is inlined and its result is a local variable, put JM_KEEP(result) before jm_inference_end().
 */
#ifndef JOULEMETER_TRIGGER_H
#define JOULEMETER_TRIGGER_H

#include <stdint.h>

#if defined(JM_BACKEND_STM32_HAL) + defined(JM_BACKEND_STM32_BSRR) + defined(JM_BACKEND_ARDUINO) + \
        defined(JM_BACKEND_ZEPHYR) + defined(JM_BACKEND_ESP_IDF) > 1
#error "joulemeter_trigger.h: choose one JM_BACKEND_..."
#endif

/* -- compiler -------------------------------------------------------------------------------------------------- */

#if !defined(JM_BARRIER)
#if defined(__GNUC__) || defined(__clang__) || defined(__ICCARM__)
#define JM_BARRIER() __asm__ volatile("" ::: "memory")
#else
#error "joulemeter_trigger.h: define JM_BARRIER() as what keeps this compiler from moving memory accesses"
#endif
#endif

/* The value has to be in memory here, and so has to be computed before. */
#define JM_KEEP(value) __asm__ volatile("" : : "r"(&(value)) : "memory")

#if defined(__GNUC__) || defined(__clang__)
#define JM_INLINE static inline __attribute__((always_inline))
#else
#define JM_INLINE static inline
#endif

/* Runs before every edge. Define it as __DSB() on a core that buffers its writes (Cortex-M7), so that the stores of
 * the model have reached the memory when the line falls. It is part of an empty pair, too. */
#ifndef JM_SYNC
#define JM_SYNC() ((void)0)
#endif

/* How long a stamp is low, and the pause between empty pairs. EEMBC's runner ignores stamps below 50 us. */
#ifndef JM_HOLD_US
#define JM_HOLD_US 100
#endif
/* The same where no delay in microseconds is at hand, about four cycles each. */
#ifndef JM_HOLD_LOOPS
#define JM_HOLD_LOOPS 20000u
#endif

/* -- backends: JM_LINES, JM_PIN_SETUP, JM_PIN_HIGH, JM_PIN_LOW, JM_HOLD ------------------------------------------- */

#if defined(JM_BACKEND_STM32_HAL) || defined(JM_BACKEND_STM32_BSRR)
/* Include the family's header first (main.h of a CubeMX project), and set the pins up as push-pull outputs there.
 *     #define JM_PINS { GPIOE, GPIO_PIN_7 }, { GPIOE, GPIO_PIN_8 } */
typedef struct {
    GPIO_TypeDef *port;
    uint16_t pin;
} jm_pin_t;
static const jm_pin_t jm_pins[] = {JM_PINS};
#if defined(JM_BACKEND_STM32_HAL)
#define JM_PIN_HIGH(line) HAL_GPIO_WritePin(jm_pins[line].port, jm_pins[line].pin, GPIO_PIN_SET)
#define JM_PIN_LOW(line) HAL_GPIO_WritePin(jm_pins[line].port, jm_pins[line].pin, GPIO_PIN_RESET)
#else
/* One store: the lower half of BSRR sets, the upper half resets. */
#define JM_PIN_HIGH(line) (jm_pins[line].port->BSRR = jm_pins[line].pin)
#define JM_PIN_LOW(line) (jm_pins[line].port->BSRR = (uint32_t)jm_pins[line].pin << 16)
#endif

#elif defined(JM_BACKEND_ARDUINO)
/*     #define JM_PINS 2, 3 */
#include <Arduino.h>
static const uint8_t jm_pins[] = {JM_PINS};
#define JM_PIN_SETUP(line) (digitalWrite(jm_pins[line], LOW), pinMode(jm_pins[line], OUTPUT), 0)
#define JM_PIN_HIGH(line) digitalWrite(jm_pins[line], HIGH)
#define JM_PIN_LOW(line) digitalWrite(jm_pins[line], LOW)
#define JM_HOLD() delayMicroseconds(JM_HOLD_US)

#elif defined(JM_BACKEND_ZEPHYR)
/*     #define JM_PINS GPIO_DT_SPEC_GET_BY_IDX(DT_PATH(zephyr_user), jm_gpios, 0) */
#include <zephyr/drivers/gpio.h>
#include <zephyr/kernel.h>
static const struct gpio_dt_spec jm_pins[] = {JM_PINS};
#define JM_PIN_SETUP(line) gpio_pin_configure_dt(&jm_pins[line], GPIO_OUTPUT_INACTIVE)
#define JM_PIN_HIGH(line) gpio_pin_set_dt(&jm_pins[line], 1)
#define JM_PIN_LOW(line) gpio_pin_set_dt(&jm_pins[line], 0)
#define JM_HOLD() k_busy_wait(JM_HOLD_US)

#elif defined(JM_BACKEND_ESP_IDF)
/*     #define JM_PINS GPIO_NUM_4, GPIO_NUM_5 */
#include "driver/gpio.h"
#include "esp_rom_sys.h"
static const gpio_num_t jm_pins[] = {JM_PINS};
#define JM_PIN_SETUP(line) ((int)gpio_reset_pin(jm_pins[line]) | (int)gpio_set_direction(jm_pins[line], GPIO_MODE_OUTPUT))
#define JM_PIN_HIGH(line) gpio_set_level(jm_pins[line], 1)
#define JM_PIN_LOW(line) gpio_set_level(jm_pins[line], 0)
#define JM_HOLD() esp_rom_delay_us(JM_HOLD_US)

#elif !defined(JM_PIN_HIGH) || !defined(JM_PIN_LOW)
#error "joulemeter_trigger.h: define JM_BACKEND_... and JM_PINS, or JM_PIN_HIGH(line) and JM_PIN_LOW(line)"
#endif

#ifndef JM_LINES
#if defined(JM_PINS)
#define JM_LINES ((int)(sizeof(jm_pins) / sizeof(jm_pins[0])))
#else
#define JM_LINES 1
#endif
#endif
typedef char jm_there_are_at_most_eight_lines[(JM_LINES >= 1 && JM_LINES <= 8) ? 1 : -1];

#ifndef JM_PIN_SETUP
#define JM_PIN_SETUP(line) 0
#endif

#ifndef JM_HOLD
JM_INLINE void jm_spin(void)
{
    uint32_t left;
    for (left = JM_HOLD_LOOPS; left != 0u; --left) {
        JM_BARRIER();
    }
}
#define JM_HOLD() jm_spin()
#endif

/* -- edges ------------------------------------------------------------------------------------------------------- */

JM_INLINE void jm_high(int line)
{
    (void)line;
    JM_BARRIER();
    JM_SYNC();
    JM_PIN_HIGH(line);
    JM_BARRIER();
}

JM_INLINE void jm_low(int line)
{
    (void)line;
    JM_BARRIER();
    JM_SYNC();
    JM_PIN_LOW(line);
    JM_BARRIER();
}

/* Every line an output, and low. 0 when all are; pins of an STM32 are made outputs elsewhere. */
static inline int jm_init(void)
{
    int line, failed = 0;
    for (line = 0; line < JM_LINES; ++line) {
        failed |= (JM_PIN_SETUP(line)) != 0;
        jm_low(line);
    }
    return failed;
}

JM_INLINE void jm_inference_begin(void)
{
    jm_high(0);
}

JM_INLINE void jm_inference_end(void)
{
    jm_low(0);
}

/* `phase` is 1 to 7 and has a pin; any other number does nothing. Phases may lie inside the inference or beside it. */
JM_INLINE void jm_phase_begin(int phase)
{
    if (phase >= 1 && phase < JM_LINES) {
        jm_high(phase);
    }
}

JM_INLINE void jm_phase_end(int phase)
{
    if (phase >= 1 && phase < JM_LINES) {
        jm_low(phase);
    }
}

/* The pulse that a meter sees for no work, by the same code. Its width is what the edges add to each window. */
static inline void jm_empty_pairs(uint32_t count)
{
    while (count-- != 0u) {
        jm_inference_begin();
        jm_inference_end();
        JM_HOLD();
    }
}

/* -- EEMBC ------------------------------------------------------------------------------------------------------- */

#ifndef JM_STAMP_LINE
#define JM_STAMP_LINE 0
#endif

/* The line rests high. Call it after jm_init(). */
static inline void jm_stamp_init(void)
{
    jm_high(JM_STAMP_LINE);
}

/* A falling edge. One to set up, then one before and one after each window: `--trigger d0:falling-pairs`. The low time
 * of the stamp that begins a window lies in the window, as in EEMBC's reference. */
static inline void jm_stamp(void)
{
    jm_low(JM_STAMP_LINE);
    JM_HOLD();
    jm_high(JM_STAMP_LINE);
}

#endif
