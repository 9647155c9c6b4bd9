/* The names and types of ST's HAL (UM1725, GPIO) that are in use; registers as in the reference manuals. */
#ifndef MAIN_H
#define MAIN_H
#include <stdint.h>

#include "record.h"
typedef struct {
    volatile uint32_t MODER, OTYPER, OSPEEDR, PUPDR, IDR, ODR, BSRR, LCKR, AFR[2];
} GPIO_TypeDef;
typedef enum { GPIO_PIN_RESET = 0, GPIO_PIN_SET } GPIO_PinState;
#ifdef __cplusplus
extern "C" {
#endif
extern GPIO_TypeDef stub_port_e;
#ifdef __cplusplus
}
#endif
#define GPIOE (&stub_port_e)
#define GPIO_PIN_7 ((uint16_t)0x0080)
#define GPIO_PIN_8 ((uint16_t)0x0100)
static inline void HAL_GPIO_WritePin(GPIO_TypeDef *port, uint16_t pins, GPIO_PinState state)
{
    int bit;
    for (bit = 0; bit < 16; ++bit) {
        if (port == GPIOE && (pins >> bit & 1)) {
            record_pin(bit, state != GPIO_PIN_RESET);
        }
    }
}
#define HAL_Init() record("setup")
#define SystemClock_Config() ((void)0)
#define MX_GPIO_Init() ((void)0)
#define HAL_Delay(ms) ((void)(ms), record_pause())
#endif
