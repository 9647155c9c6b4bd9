// The names and types of the Arduino language reference that are in use.
#ifndef ARDUINO_H
#define ARDUINO_H
#include <stdint.h>

#include "record.h"
#define LOW 0x0
#define HIGH 0x1
#define OUTPUT 0x1
static inline void pinMode(uint8_t pin, uint8_t mode) { printf("output %d %d\n", pin, mode); }
static inline void digitalWrite(uint8_t pin, uint8_t level) { record_pin(pin, level); }
static inline void delayMicroseconds(unsigned int us) { printf("hold %u\n", us); }
static inline void delay(unsigned long ms) { (void)ms, record_pause(); }
#endif
