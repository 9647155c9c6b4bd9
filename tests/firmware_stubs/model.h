#ifdef __cplusplus
extern "C" {
#endif
void model_preprocess(void);
void model_invoke(void);
#ifdef __cplusplus
}
#endif
