"""LLaDA-V-Qwen: a masked-diffusion vision-language model that writes chest X-ray reports."""
